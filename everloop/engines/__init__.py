"""One file is one thing that answers: loads, answers, converts."""
