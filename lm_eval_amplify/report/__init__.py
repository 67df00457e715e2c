"""What people see of results: leaderboards, comparisons, tables, figures and pages."""
