"""Encryption of what is stored: keys, the form of an encrypted object, and the keyring that says which keys it takes.

docs/format.md has the bytes, docs/decisions/0019 the reasons. Nothing in here reads or writes anything; what is
random is handed in. `cryptography` is an extra: only `replicad.encryption.sealing` needs it.
"""
