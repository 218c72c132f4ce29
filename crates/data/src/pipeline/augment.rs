//! Augmented copies of the records that train, made when the split is done: a copy is where its parent is, and nothing that
//! was decided about records is decided by copies.

use super::Finished;
use super::row::length_class;
use super::stored::entry_of;
use crate::augment::Augment;
use crate::near::{fold, hash_bytes};
use crate::pipeline::strata::weigh;
use crate::spill::{Log, Spill};
use crate::split::Part;
use crate::{DataError, Record, wire};
use std::collections::{BTreeMap, HashSet};

/// What augmentation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Augmented {
    /// Copies by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Copies that were not made because nothing in the record could be changed.
    pub unchanged: u64,
    /// Copies that were left out because they ask what a held-out record asks.
    pub held_out: u64,
    /// Copies that were left out because another training record or copy asks the same, or has their id.
    pub known: u64,
}

/// What all records ask, and ids that look like a copy's: eight bytes each.
#[derive(Default)]
struct Known {
    /// Texts of held-out records, up to case, punctuation and white space.
    held_out: HashSet<u64>,
    /// Questions of training records, up to white space.
    trained: HashSet<u64>,
    ids: HashSet<u64>,
}

fn question(record: &Record) -> u64 {
    hash_bytes(&record.input_key())
}

impl Finished {
    /// Makes copies of all training records. They are appended behind the records, and so come last among them.
    pub fn augment(&mut self, augment: &Augment, spill: &dyn Spill) -> Result<Augmented, DataError> {
        let mut known = Known::default();
        let corrupt = |problem| DataError::Spill { problem };
        self.rows(|_, part, line| {
            let record = wire::read_record(line).map_err(corrupt)?;
            if part == Part::Train {
                known.trained.insert(question(&record));
            } else {
                known.held_out.insert(hash_bytes(fold(&record.asked()).as_bytes()));
            }
            if record.id.contains('~') {
                known.ids.insert(hash_bytes(record.id.as_bytes()));
            }
            Ok::<(), DataError>(())
        })?;
        let mut done = Augmented::default();
        let mut copies = Log::new(spill)?;
        let mut made: Vec<(u32, usize, [u8; 2])> = Vec::new();
        self.rows(|row, part, line| {
            if part != Part::Train {
                return Ok(());
            }
            let parent = wire::read_record(line).map_err(corrupt)?;
            for number in 0..augment.copies {
                let Some(copy) = augment.copy(&parent, number) else {
                    done.unchanged += 1;
                    continue;
                };
                if known.held_out.contains(&hash_bytes(fold(&copy.asked()).as_bytes())) {
                    done.held_out += 1;
                } else if known.ids.contains(&hash_bytes(copy.id.as_bytes())) || !known.trained.insert(question(&copy)) {
                    done.known += 1;
                } else {
                    let entry = entry_of(&copy);
                    copies.push(&entry)?;
                    made.push((row, entry.len(), [length_class(&copy.asked()), length_class(&copy.answer.to_text())]));
                    let kind = copy.lineage.change.map(|change| change.kind).unwrap_or_default();
                    *done.kinds.entry(kind).or_default() += 1;
                }
            }
            Ok::<(), DataError>(())
        })?;
        drop(known);
        let lengths: Vec<usize> = made.iter().map(|(_, length, _)| *length).collect();
        copies.pieces(lengths.into_iter(), |index, entry| {
            let (parent, _, words) = made[index];
            let (row, parent) = (self.start.len(), parent as usize);
            if row >= super::MAX_RECORDS {
                let (given, limit) = ((row - index + made.len()) as u64, super::MAX_RECORDS as u64);
                return Err(DataError::TooLarge { origin: "all sources".into(), line: None, what: "records with copies", given, limit });
            }
            self.start.push(self.records.push(entry)?);
            self.place.push(Some(Part::Train));
            self.stratum.push(self.stratum[parent]);
            self.lengths.push(words);
            let weight = self.weight.get(parent).copied();
            weigh(&mut self.weight, row, weight);
            Ok(())
        })?;
        Ok(done)
    }
}
