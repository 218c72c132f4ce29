//! Exported adapters are what was trained, and are refused where nothing was.

use std::path::Path;

use recipes::export::export_peft;
use store::peft::PeftAdapter;

use crate::home::{Home, fresh_adapter};

#[test]
fn an_adapter_comes_out_as_it_went_in() {
    let home = Home::new();
    let adapter = home.golden_adapter("llama");
    let output = home.path("out");
    let exported = export_peft(&adapter, &output).unwrap();
    assert_eq!((exported.rank, exported.alpha, exported.tensors), (4, 8.0, 3 * 7 * 2));
    assert_eq!(PeftAdapter::read(&output).unwrap(), PeftAdapter::read(&adapter).unwrap());
    let again = export_peft(&adapter, &output).unwrap_err();
    assert!(again.to_string().contains("exists already") && again.hint().is_some(), "{again}");
}

#[test]
fn what_was_never_trained_is_refused() {
    let home = Home::new();
    let model = home.tiny_model();
    let fresh = fresh_adapter(&home, Path::new(&model), 2);
    let error = export_peft(&fresh, &home.path("out")).unwrap_err();
    assert!(error.to_string().contains("changes nothing"), "{error}");
    assert!(!home.path("out").exists());
    let error = export_peft(&home.path("no-run"), &home.path("out")).unwrap_err();
    assert!(error.to_string().contains("no adapter yet"), "{error}");
}
