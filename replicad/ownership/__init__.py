"""Who may write the history: claims, epochs, and the records of both."""
