"""What a model asks for: sizes in, work out."""
