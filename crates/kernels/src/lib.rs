//! Arithmetic on slices, each forward beside its backward: knows no model.
