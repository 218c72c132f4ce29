//! Plan, prepare, tune, evaluate, report: the only place where all crates meet.
//!
//! Read in the order of a run: [`spec`] (the run file and its plan), [`base`] (the base model), [`prepare`],
//! [`plan`] (what it would do), [`evaluate`] and [`responder`] (the arms), [`tune`], [`report`], and [`run`], which
//! tells the whole story top to bottom. The others are commands of their own.
#![forbid(unsafe_code)]

pub mod adapters;
pub mod audit;
pub mod base;
pub mod bench;
mod budget;
pub mod chat;
mod classical;
pub mod compute;
pub mod context;
pub mod doctor;
pub mod error;
pub mod evaluate;
pub mod export;
mod gguf_adapter;
mod governance;
pub mod init;
pub mod inspect;
pub mod label;
mod layers;
mod moments;
pub mod plan;
pub mod prepare;
pub mod pull;
mod rendering;
pub mod report;
pub mod responder;
pub mod review;
pub mod run;
pub mod runs;
pub mod score;
mod source_files;
pub mod spec;
pub mod storage;
mod texts;
pub mod tune;
mod tune_full;

pub use eval::Verdict;
