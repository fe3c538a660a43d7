"""The model server: answers with the champion, keeps what it said, and takes corrections."""
