"""For tests, and for users who want to see what their build does when a server fails: no build imports any of this.

`fault_server` is an OpenAI-compatible server on the loopback interface that answers, fails and bills by a script.
"""
