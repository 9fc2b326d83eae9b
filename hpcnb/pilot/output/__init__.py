"""What tasks print: caught in the worker, kept in its log, and told to whoever submitted them."""
