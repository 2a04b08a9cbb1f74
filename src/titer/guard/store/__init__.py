"""Where the guard keeps its state: one database (SQLite, or PostgreSQL by URL), every write through one journal."""
