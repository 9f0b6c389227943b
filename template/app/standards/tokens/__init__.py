"""Standard 5: token governance. Count before anything is spent; keep a conversation small."""
