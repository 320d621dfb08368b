"""The numbered SQL files that make the schema, a folder for each database."""
