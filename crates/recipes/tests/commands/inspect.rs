//! `inspect` on tiny models, on what is no model, and on hosted ones.

use recipes::context::Silent;
use recipes::error::Error;
use recipes::inspect::{InspectOptions, Inspected, Inspection, Local, inspect, lines};

use crate::home::Home;

fn look(home: &Home, models: &[String], data: Option<&std::path::Path>) -> Result<Inspection, Error> {
    inspect(&home.context(), &mut Silent, InspectOptions { models, data, hourly_cost: Some(2.0) })
}

fn local(model: &Inspected) -> &Local {
    match model {
        Inspected::Local(local) => local,
        Inspected::Hosted { name, .. } => panic!("{name} is hosted"),
    }
}

fn text(inspection: &Inspection) -> String {
    let lines = lines(inspection);
    for line in &lines {
        assert!(line.chars().count() <= 80 || line.contains("https://") || !line.trim().contains(' '), "{line:?}");
    }
    lines.join("\n")
}

#[test]
fn a_folder_is_told_from_its_files() {
    let home = Home::new();
    let folder = home.golden_model("llama");
    home.write("llama/README.md", "---\nlicense: gemma\n---\n");
    home.write("llama/pytorch_model.bin", "PK");
    home.write("llama/modeling_llama.py", "import os");
    let mut inspection = look(&home, &[folder], None).unwrap();
    let model = local(&inspection.models[0]);
    // The golden tokenizer has no bytes: what users write does not come back.
    assert!(!model.ready && model.problems.len() == 1 && model.problems[0].what.contains("does not give back"), "{:?}", model.problems);
    let modules: Vec<&str> = model.adapters.iter().map(|adapter| adapter.module.as_str()).collect();
    assert_eq!(modules, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
    assert!(model.template.trainable && model.template.roles == ["system", "user", "assistant"]);
    assert_eq!((model.template.end_of_turn.as_str(), model.licence.as_str()), ("<|im_end|>", "gemma"));
    assert!(model.licence_asks.contains("Prohibited Use Policy"));
    let refused: Vec<&str> = model.files.iter().filter(|file| file.refused.is_some()).map(|file| file.name.as_str()).collect();
    assert_eq!(refused, ["modeling_llama.py", "pytorch_model.bin"]);
    let names: Vec<(&str, &str)> = model.methods.iter().map(|method| (method.method, method.storage.as_str())).collect();
    assert_eq!(names[0], ("LoRA", ""));
    let full = model.methods.iter().find(|method| method.method == "full").expect("float weights can be trained in full");
    // Weights, gradients and both moments in f32, whatever else there is.
    assert!(full.memory_least > 16 * full.trained, "{full:?}");
    assert!(model.methods.iter().all(|method| method.memory_least <= method.memory_fastest && method.cost_per_million.is_some()));
    assert!(model.methods[0].memory_mapped < model.methods[0].memory_least && full.memory_mapped == full.memory_least, "{full:?}");
    let rank_16: u64 = model.adapters.iter().map(|adapter| adapter.parameters_rank_16).sum();
    assert_eq!(model.methods[0].trained, rank_16, "the engine counts the same");
    let words = |inspection: &Inspection| text(inspection).split_whitespace().collect::<Vec<_>>().join(" ");
    let all = words(&inspection);
    assert!(all.contains("pytorch_model.bin (pickle") && all.contains("Gemma Terms of Use"), "{all}");
    for (mapped, said) in [(true, "read from the mapped files"), (false, "needs more memory than is available now")] {
        let Inspected::Local(model) = &mut inspection.models[0] else { unreachable!("a folder is local") };
        (model.methods[0].fits, model.methods[0].fits_mapped) = (Some(false), Some(mapped));
        let other = words(&inspection);
        assert!(other.contains(said) && !all.contains(said), "{other}");
    }
}

#[test]
fn what_cannot_be_read_is_said_with_what_helps() {
    let home = Home::new();
    home.write("pickled/config.json", "{}");
    home.write("pickled/pytorch_model.bin", "PK");
    home.write("cut/model.gguf", "GGUF");
    home.write("weights.ckpt", "PK");
    let folder = home.tiny_model();
    let ends = "\"bos_token\": \"<|im_start|>\", \"eos_token\": \"<|im_end|>\"";
    home.write(
        "tiny/tokenizer_config.json",
        format!("{{{ends}, \"chat_template\": \"{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}\"}}"),
    );
    let paths: Vec<String> = ["pickled", "cut", "weights.ckpt"].map(|name| home.path(name).display().to_string()).into();
    let inspection = look(&home, &[&paths[..], &[folder]].concat(), None).unwrap();
    let models: Vec<&Local> = inspection.models.iter().map(local).collect();
    assert!(models.iter().all(|model| !model.ready && !model.problems.is_empty()));
    assert!(models[0].problems[0].hint.as_ref().is_some_and(|hint| hint.contains("save_pretrained")), "{:?}", models[0].problems);
    assert!(models[2].problems.iter().any(|problem| problem.what.contains("weights.ckpt")));
    // A template that cannot mark answers is one problem; the rest of the model is told all the same.
    assert!(models[3].parameters > 0 && !models[3].template.trainable && !models[3].methods.is_empty(), "{:?}", models[3].problems);
    let text = text(&inspection);
    assert!(text.contains("not ready") && text.contains("answers cannot be told from prompts"), "{text}");
}

#[test]
fn models_are_ranked_by_their_loss_on_the_users_records() {
    let home = Home::new();
    let folder = home.tiny_model();
    let messages = |n: usize| serde_json::json!({ "messages": [{ "role": "user", "content": format!("Order {n} is late") }, { "role": "assistant", "content": "delivery" }] });
    let records = home.write("records.jsonl", (0..40).map(|n| messages(n).to_string() + "\n").collect::<String>());
    let inspection = look(&home, &[folder.clone(), "gpt-4o".into(), folder.clone()], Some(&records)).unwrap();
    assert!(inspection.ranked_by.is_some());
    let [first, second, hosted] = &inspection.models[..] else { panic!("three models") };
    let (first, second) = (local(first).loss.unwrap(), local(second).loss.unwrap());
    assert_eq!(first, second, "the same model");
    assert!(first.records == 20 && first.nats_per_answer > first.nats_per_token && first.nats_per_token > 1.0, "{first:?}");
    assert!(matches!(hosted, Inspected::Hosted { .. }), "what has no loss comes last");
    let data = local(&inspection.models[0]).data.clone().unwrap();
    assert!(data.texts == 40 && data.tokens_per_word > 1.0 && data.too_long == 0 && data.changed == 0, "{data:?}");
    assert!(text(&inspection).contains("best first"));

    // A table whose columns nobody named has words, but no answers to rank by.
    let table = home.write("table.csv", "a,b\none two,three\nfour,five six\n");
    let inspection = look(&home, &[folder], Some(&table)).unwrap();
    assert!(local(&inspection.models[0]).data.as_ref().is_some_and(|data| data.texts == 2) && inspection.ranked_by.is_none());
}

#[test]
fn hosted_models_have_dated_facts_and_unknown_names_neighbours() {
    let home = Home::new();
    let inspection = look(&home, &["gpt-4o".into(), "claude".into()], None).unwrap();
    let text = text(&inspection).split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["6 January 2027", "14 January 2027", "looked up 2026-", "https://docs.aws.amazon.com/", "unknown", "Anthropic"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(inspection.speed.is_none(), "nothing here was measured");
    let error = look(&home, &["smolm2-135m-instruct".into()], None).unwrap_err();
    assert!(error.hint().unwrap().starts_with("did you mean smollm2-135m-instruct?"), "{:?}", error.hint());
    let error = look(&home, &["gpt4o".into()], None).unwrap_err();
    assert!(error.hint().unwrap().starts_with("did you mean gpt-4o"), "{:?}", error.hint());
}
