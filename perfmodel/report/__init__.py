"""What an answer reads like: sentences, tables, the screen, Markdown and JSON, all saying the same."""
