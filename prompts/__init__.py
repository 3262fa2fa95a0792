"""The prompt templates, as package data: `review/*.jinja` is what the student reads."""
