//! What a person sees while it works: bars on a terminal, plain lines elsewhere. All of it goes to stderr.
#![expect(clippy::disallowed_methods, reason = "the pace of progress lines is the binary's own clock")]

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use recipes::context::{Event, Observer};

/// Seconds between two plain lines of the same work.
const LINE_SECONDS: f64 = 10.0;

/// The observer of the command line.
pub(crate) struct Progress {
    stop: Arc<AtomicBool>,
    /// The work's lines go to stdout as they come: without a reader it stops.
    for_reader: bool,
    terminal: bool,
    bar: Option<ProgressBar>,
    plain: Option<Plain>,
}

struct Plain {
    what: String,
    unit: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    last: Instant,
    tail: String,
}

impl Progress {
    /// Bars if stderr is a terminal. `stop` is set by Ctrl-C.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        Progress { stop, for_reader: false, terminal: std::io::stderr().is_terminal(), bar: None, plain: None }
    }

    /// What is computed is written as it comes: when nobody reads it any more, the work ends.
    pub(crate) fn writes_as_it_goes(&mut self) {
        self.for_reader = true;
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn start(&mut self, what: String, total: u64, unit: &'static str) {
        self.end();
        if self.terminal {
            let template = match (total, unit) {
                (0, _) => "  {msg} {pos} {spinner}",
                (_, "bytes") => "  {msg:24} {bar:24} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
                _ => "  {msg:24} {bar:24} {pos}/{len} {per_sec} {eta} left {prefix}",
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ");
            let bar =
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8)).with_style(style).with_message(what);
            bar.enable_steady_tick(Duration::from_millis(500));
            self.bar = Some(bar);
        } else {
            let now = Instant::now();
            self.plain = Some(Plain { what, unit, total, done: 0, started: now, last: now, tail: String::new() });
        }
    }

    fn progress(&mut self, done: u64, tail: String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_prefix(tail);
        } else if let Some(plain) = &mut self.plain {
            plain.done = done;
            plain.tail = tail;
            if plain.last.elapsed().as_secs_f64() >= LINE_SECONDS {
                plain.last = Instant::now();
                eprintln!("{}", plain.describe());
            }
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(plain) = self.plain.take().filter(|plain| plain.started.elapsed().as_secs_f64() >= LINE_SECONDS) {
            eprintln!("{}", plain.describe());
        }
    }
}

impl Plain {
    fn describe(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = self.done as f64 / seconds;
        let left = if self.done > 0 && self.total > self.done {
            format!(", {} left", duration((self.total - self.done) as f64 / rate))
        } else {
            String::new()
        };
        let total = if self.total > 0 { format!("/{}", self.total) } else { String::new() };
        format!("  {} {}{total} {} ({rate:.1}/s{left}) {}", self.what, self.done, self.unit, self.tail).trim_end().to_owned()
    }
}

impl Observer for Progress {
    fn event(&mut self, event: Event) {
        match event {
            Event::Stage(name) => {
                self.end();
                self.line(&format!("\n{name}"));
            }
            Event::Note(text) => self.line(&format!("  {text}")),
            Event::Warning(text) => self.line(&format!("  warning: {text}")),
            Event::Start { what, total, unit } => self.start(what, total, unit),
            Event::Progress { done, loss, validation } => {
                let mut tail = String::new();
                if let Some(loss) = loss {
                    tail += &format!("loss {loss:.3}");
                }
                if let Some(validation) = validation {
                    tail += &format!(" val {validation:.3}");
                }
                self.progress(done, tail);
            }
            Event::End => self.end(),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || (self.for_reader && crate::output::closed())
    }
}

/// "1 h 05 min", "3 min 20 s", "12 s".
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}
