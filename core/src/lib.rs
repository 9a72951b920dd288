//! Pure logic of Miroir.
