"""What there is to train on, before anything is trained: a report of a data folder, and pages of clips to look at.

``run`` makes the report: ``listing`` reads the tables, ``files`` the headers, ``sound`` decodes where it is asked for,
``tables`` counts, ``findings`` says what is wrong and which key of a recipe helps, ``page`` shows all of it. ``look``
draws clips, also as a network gets them. No module imports torch; drawing what augmentation makes does, when called.
"""
