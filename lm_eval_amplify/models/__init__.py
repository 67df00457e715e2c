"""The harness models that amplify."""
