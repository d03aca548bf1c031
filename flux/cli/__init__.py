"""The `flux` command: everything that can be done with executions, from a terminal or a script.

`app` says what can be asked for; each other module does the work of a few commands, or knows one thing they share."""
