//! Every byte on disk: formats, atomic writes, model folders, fetching.
#![forbid(unsafe_code)]
