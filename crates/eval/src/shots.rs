//! Examples for the few-shot rival: k per class under a token budget, the same for the same seed.
//!
//! The rival must be as good as prompting can make it, so that beating it means something: every class is shown before any is shown twice,
//! classes alternate (a run of one class at the end would pull the answer towards it), and how many per class is chosen on
//! validation among [`Amount::candidates`].

use std::collections::BTreeMap;

use crate::random::Stream;
use crate::subject::Message;

/// How many examples to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// This many of each class, if they fit.
    PerClass(usize),
    /// As many as fit, all classes in turn.
    WhatFits,
}

impl Amount {
    /// The three that are tried: 1 per class, 2 per class, what fits.
    #[must_use]
    pub fn candidates() -> [Self; 3] {
        [Self::PerClass(1), Self::PerClass(2), Self::WhatFits]
    }

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::PerClass(count) => format!("{count} per class"),
            Self::WhatFits => "what fits".to_owned(),
        }
    }
}

/// The chosen examples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shots {
    /// What was asked for.
    pub amount: Amount,
    /// Indices of the chosen candidates, in the order in which they are shown.
    pub chosen: Vec<usize>,
    /// Their cost together.
    pub cost: usize,
    /// How many classes there are, and how many of them are shown.
    pub classes: (usize, usize),
    /// Whether everything asked for fit. Always false for [`Amount::WhatFits`] unless all candidates fit.
    pub complete: bool,
}

/// Picks examples. `classes` is the class of each candidate (for records: its stratum); `cost` gives the tokens that a
/// candidate adds; the sum stays within `budget`.
///
/// Round by round every class gives its next candidate in random order; a candidate that doesn't fit is passed over for the next of its class.
#[must_use]
pub fn select(classes: &[&str], amount: Amount, budget: usize, seed: u64, mut cost: impl FnMut(usize) -> usize) -> Shots {
    let stream = Stream::new(seed, "shots");
    let mut queues: BTreeMap<&str, std::collections::VecDeque<usize>> = BTreeMap::new();
    for candidate in stream.permutation(classes.len()) {
        queues.entry(classes[candidate]).or_default().push_back(candidate);
    }
    let sizes: Vec<usize> = queues.values().map(std::collections::VecDeque::len).collect();
    let mut queues: Vec<_> = queues.into_values().collect();
    let limit = match amount {
        Amount::PerClass(count) => count,
        Amount::WhatFits => usize::MAX,
    };
    let wanted: usize = sizes.iter().map(|&size| size.min(limit)).sum();
    let mut chosen = Vec::new();
    let mut spent = 0;
    let mut shown = vec![false; queues.len()];
    let mut round = 0;
    while round < limit {
        let mut any = false;
        for class in stream.fork(round as u64).permutation(queues.len()) {
            while let Some(candidate) = queues[class].pop_front() {
                let price = cost(candidate);
                if spent + price <= budget {
                    spent += price;
                    chosen.push(candidate);
                    shown[class] = true;
                    any = true;
                    break;
                }
            }
        }
        if !any {
            break;
        }
        round += 1;
    }
    Shots {
        amount,
        complete: chosen.len() == wanted,
        cost: spent,
        classes: (queues.len(), shown.iter().filter(|shown| **shown).count()),
        chosen,
    }
}

/// A prompt with examples before it: leading system turns, then each example's own turns, then the rest of the prompt.
#[must_use]
pub fn with_examples(prompt: &[Message], examples: &[Vec<Message>]) -> Vec<Message> {
    let system = prompt.iter().take_while(|message| message.role == "system").count();
    let mut messages = prompt[..system].to_vec();
    messages.extend(examples.iter().flatten().filter(|message| message.role != "system").cloned());
    messages.extend_from_slice(&prompt[system..]);
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [&str; 9] = ["a", "a", "a", "b", "b", "c", "c", "c", "c"];

    #[test]
    fn each_class_before_any_twice() {
        let shots = select(&CLASSES, Amount::PerClass(1), 100, 7, |_| 10);
        assert_eq!((shots.chosen.len(), shots.cost, shots.classes, shots.complete), (3, 30, (3, 3), true));
        let shots = select(&CLASSES, Amount::PerClass(3), 1000, 7, |_| 10);
        assert_eq!((shots.chosen.len(), shots.complete), (8, true));
        let shots = select(&CLASSES, Amount::WhatFits, 45, 7, |_| 10);
        assert_eq!((shots.chosen.len(), shots.classes, shots.complete), (4, (3, 3), false));
        let mut first: Vec<&str> = shots.chosen[..3].iter().map(|&candidate| CLASSES[candidate]).collect();
        first.sort_unstable();
        assert_eq!(first, ["a", "b", "c"]);
    }

    #[test]
    fn what_does_not_fit_is_passed_over() {
        let shots = select(&CLASSES, Amount::PerClass(1), 10, 7, |candidate| if candidate < 3 { 50 } else { 3 });
        assert_eq!((shots.chosen.len(), shots.classes, shots.complete), (2, (3, 2), false));
        let none = select(&CLASSES, Amount::WhatFits, 0, 7, |_| 1);
        assert!(none.chosen.is_empty() && !none.complete);
        assert!(select(&[], Amount::WhatFits, 9, 7, |_| 1).complete);
    }

    #[test]
    fn examples_stand_between_system_and_question() {
        let prompt = [Message::new("system", "s"), Message::new("user", "q")];
        let example = vec![Message::new("system", "s"), Message::new("user", "x"), Message::new("assistant", "y")];
        let roles: Vec<String> = with_examples(&prompt, &[example]).into_iter().map(|message| message.content).collect();
        assert_eq!(roles, ["s", "x", "y", "q"]);
    }
}
