"""Conversations from anywhere, chat templates, and the data that the project generates itself."""
