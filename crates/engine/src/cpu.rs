//! The processor as a device (being written).
