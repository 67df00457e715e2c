"""A study: many interventions compared on the same tasks, the best of each language chosen, and evaluated.

study.yaml --study--> plan of conditions x tasks --running--> units of results in a folder --choosing--> further units
"""
