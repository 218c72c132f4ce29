//! Compute paths, and the threads that a device computes with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use kernels::cache::KvType;

/// How a model is asked: the path of its products, and what its cache of keys and values holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compute {
    /// Products.
    pub path: ComputePath,
    /// Keys and values of generation.
    pub kv: KvType,
}

/// How the products with frozen weights are computed. Training is `Exact` always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ComputePath {
    /// In f32, whatever the weights are stored in.
    #[default]
    Exact,
    /// Over quantised weights in integers, with the other operand rounded to eight bits, see [`kernels::integer`]; other
    /// weights as in `Exact`.
    Fast,
}

impl ComputePath {
    /// Both.
    pub const ALL: [ComputePath; 2] = [ComputePath::Exact, ComputePath::Fast];

    /// The name in run files, manifests and reports.
    pub const fn name(self) -> &'static str {
        match self {
            ComputePath::Exact => "exact",
            ComputePath::Fast => "fast",
        }
    }

    /// The path of that name.
    pub fn from_name(name: &str) -> Option<ComputePath> {
        ComputePath::ALL.into_iter().find(|path| path.name() == name)
    }
}

/// Looks for work before a waiting thread lets others have its processor: some 20 µs.
const ROUNDS: usize = 400;

/// The threads of a device: a handle that is cheap to copy.
#[derive(Clone, Default)]
pub struct Threads(Option<Arc<rayon::ThreadPool>>);

impl Threads {
    /// Those of `pool`.
    pub(crate) fn of(pool: Arc<rayon::ThreadPool>) -> Threads {
        Threads(Some(pool))
    }

    /// Runs `work` on one of them, where there are any: operations called from there start at once.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.0 {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Keeps them looking for work until what is returned is dropped. Writing a token is hundreds of operations of some
    /// microseconds: a thread that sleeps between two of them wakes up too late for the next.
    pub fn awake(&self) -> Awake {
        let ended = Arc::new(AtomicBool::new(false));
        if let Some(pool) = self.0.as_ref().filter(|pool| pool.current_num_threads() > 1) {
            for _ in 0..pool.current_num_threads() {
                let ended = Arc::clone(&ended);
                pool.spawn(move || look_for_work(&ended));
            }
        }
        Awake(ended)
    }
}

/// See [`Threads::awake`].
#[must_use = "threads are awake while it lives"]
pub struct Awake(Arc<AtomicBool>);

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn look_for_work(ended: &AtomicBool) {
    let mut idle = 0;
    while !ended.load(Ordering::Relaxed) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            idle = 0;
        } else if idle < ROUNDS {
            idle += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_names() {
        for path in ComputePath::ALL {
            assert_eq!(ComputePath::from_name(path.name()), Some(path));
        }
        assert_eq!(ComputePath::from_name("int8"), None);
    }

    #[test]
    fn threads_work_while_they_are_awake_and_sleep_after() {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap());
        let threads = Threads::of(Arc::clone(&pool));
        for _ in 0..20 {
            let _awake = threads.awake();
            let sum = threads.run(|| {
                use rayon::prelude::*;
                (0..1000u64).into_par_iter().map(|i| i * i).sum::<u64>()
            });
            assert_eq!(sum, 332_833_500);
        }
        drop(threads);
        // A thread that still looked for work would never let the pool end.
        let (sender, receiver) = std::sync::mpsc::channel();
        for _ in 0..3 {
            let sender = sender.clone();
            pool.spawn(move || sender.send(()).unwrap());
        }
        assert_eq!(receiver.iter().take(3).count(), 3);
    }
}
