//! Nothing of its own: see `guests/`.
