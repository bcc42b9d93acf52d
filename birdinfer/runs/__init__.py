"""What training and search leave on disk, read and written without torch."""
