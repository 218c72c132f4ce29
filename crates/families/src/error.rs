//! What can be wrong with a model's description or names: key, value given, value expected.

/// Everything that this crate can fail with.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FamilyError {
}
