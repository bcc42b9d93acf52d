"""The report wing (extra ``report``): pictures for people. May import matplotlib; the core never imports this wing."""
