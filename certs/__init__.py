"""The mesh's own small certificate authority: authority, identities, join tokens, trust."""
