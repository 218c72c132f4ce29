//! How a model is asked, by name: `[engine]` of the run file, `--compute` and `--kv-cache`.

use engine::compute::{Compute, ComputePath, KvType};

use crate::error::Result;

/// What `[engine] compute` and `--compute` may say.
pub const PATHS: &[&str] = &["exact", "fast"];
/// What `[engine] kv_cache` and `--kv-cache` may say.
pub const KV_CACHES: &[&str] = &["f32", "bf16", "int8"];

/// The path and the cache of these names, each one of the above; empty: the exact path, f32.
pub(crate) fn parse(path: &str, kv_cache: &str) -> Result<Compute> {
    let mut compute = Compute::default();
    if !path.is_empty() {
        crate::spec::known("compute", path, PATHS)?;
        compute.path = ComputePath::from_name(path).unwrap_or_default();
    }
    if !kv_cache.is_empty() {
        crate::spec::known("kv_cache", kv_cache, KV_CACHES)?;
        compute.kv = KvType::from_name(kv_cache).unwrap_or_default();
    }
    Ok(compute)
}

/// What manifest, verdict and report call it: the path, and the cache where it rounds.
pub(crate) fn name(compute: Compute) -> String {
    match compute.kv {
        KvType::F32 => compute.path.name().to_owned(),
        kv => format!("{}, {} cache", compute.path.name(), kv.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_a_type_of_the_engine_s() {
        for path in PATHS {
            for kv_cache in KV_CACHES {
                let compute = parse(path, kv_cache).unwrap();
                assert_eq!((compute.path.name(), compute.kv.name()), (*path, *kv_cache));
            }
        }
        assert_eq!(parse("", "").unwrap(), Compute::default());
        assert_eq!(name(parse("fast", "").unwrap()), "fast");
        assert_eq!(name(parse("fast", "int8").unwrap()), "fast, int8 cache");
        assert_eq!(parse("fsat", "").unwrap_err().hint().unwrap(), "did you mean \"fast\"?");
        assert!(parse("", "int4").is_err());
    }
}
