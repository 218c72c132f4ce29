//! Of a description that is not supported: the supported family that is nearest, and where it differs.
use crate::Family;
use crate::error::{list, shown};

/// Keys of a family's description.
pub(crate) struct Keys {
    pub(crate) family: Family,
    /// Those that change the arithmetic.
    pub(crate) read: &'static [&'static str],
}

/// The sentence for the error; empty where the description has no key in common with any family.
///
/// `given` are the description's keys, `needed` those that every supported family has, `idle` those that change no
/// arithmetic. The nearest family is the one of whose keys the fewest are strange to the other, in either direction.
pub(crate) fn differences(given: &[&str], families: &[Keys], needed: &[&str], idle: impl Fn(&str) -> bool) -> String {
    let apart = |keys: &Keys| {
        let strange: Vec<String> = given.iter().filter(|key| !keys.read.contains(key) && !idle(key)).map(|key| shown(key)).collect();
        let missing: Vec<String> = needed.iter().filter(|key| !given.contains(key)).map(|key| (*key).to_owned()).collect();
        (strange, missing)
    };
    let common = |keys: &Keys| given.iter().filter(|key| keys.read.contains(key)).count();
    let nearest = families.iter().filter(|keys| common(keys) > 0).min_by_key(|keys| {
        let (strange, missing) = apart(keys);
        (strange.len() + missing.len(), std::cmp::Reverse(common(keys)))
    });
    let Some(nearest) = nearest else { return String::new() };
    let (mut strange, missing) = apart(nearest);
    strange.sort_unstable();
    let name = nearest.family.model_type();
    if strange.is_empty() && missing.is_empty() {
        return format!(". It has the keys of {name} and no others, but another name: its blocks may still be other ones");
    }
    let part = |what: &str, names: &[String]| if names.is_empty() { String::new() } else { format!("; {what}: {}", list(names)) };
    format!(". Nearest is {name}{}{}", part("keys that it does not have", &strange), part("missing", &missing))
}
