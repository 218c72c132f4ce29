//! The recipes behind single commands, on tiny models and without a network.

mod bench;
mod chat;
mod doctor;
mod export;
mod home;
mod init;
mod inspect;
mod run_file_reference;
mod score;
