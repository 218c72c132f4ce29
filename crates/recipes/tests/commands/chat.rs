//! A conversation with a tiny model.

use recipes::chat::{ChatOptions, Finish, Session};
use recipes::context::Silent;

use crate::home::Home;

fn options(model: &str) -> ChatOptions {
    ChatOptions {
        model: model.to_owned(),
        adapter: None,
        storage: String::new(),
        compute: String::new(),
        kv_cache: String::new(),
        system: None,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 1,
        max_tokens: 12,
        stop: Vec::new(),
    }
}

fn say(session: &mut Session, text: &str) -> (String, recipes::chat::Reply) {
    let mut heard = String::new();
    let reply = session.reply(text, &mut Silent, &mut |piece| heard += piece).unwrap();
    (heard, reply)
}

#[test]
fn answers_stream_stop_and_repeat() {
    let home = Home::new();
    let model = home.tiny_model();
    let open = |options| Session::open(&home.context(), &mut Silent, options).unwrap();
    let mut session = open(ChatOptions { temperature: 1.0, ..options(&model) });
    let (heard, reply) = say(&mut session, "Where is my order?");
    assert_eq!(heard, reply.text);
    assert_eq!(session.messages().len(), 2);
    let (_, second) = say(&mut session, "And now?");
    assert!(second.prompt_tokens > reply.prompt_tokens + reply.tokens, "the whole conversation is read");

    let mut again = open(ChatOptions { temperature: 1.0, ..options(&model) });
    assert_eq!(say(&mut again, "Where is my order?").1, reply);
    let mut other = open(ChatOptions { temperature: 1.0, seed: 2, ..options(&model) });
    assert_ne!(say(&mut other, "Where is my order?").1.text, reply.text);

    // A stop text from the middle of the answer cuts it there.
    let middle = reply.text.char_indices().nth(reply.text.chars().count() / 2).unwrap().0;
    let stop = reply.text[middle..].chars().take(3).collect::<String>();
    let before = reply.text.find(&stop).unwrap();
    let mut stopped = open(ChatOptions { temperature: 1.0, stop: vec!["never said".into(), stop], ..options(&model) });
    let (heard, cut) = say(&mut stopped, "Where is my order?");
    assert_eq!((cut.finish, cut.text.as_str(), heard.as_str()), (Finish::Stop, &reply.text[..before], &reply.text[..before]));
}

#[test]
fn a_full_context_is_an_error_and_nothing_is_dropped() {
    let home = Home::new();
    let model = home.tiny_model(); // context 128
    let mut session = Session::open(&home.context(), &mut Silent, ChatOptions { max_tokens: 1000, ..options(&model) }).unwrap();
    let (_, reply) = say(&mut session, "Where is my order?");
    if reply.finish == Finish::Context {
        assert_eq!(reply.prompt_tokens + reply.tokens, 128);
    }
    let before = session.messages().to_vec();
    let error = session.reply(&"parcel ".repeat(200), &mut Silent, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("context of 128"), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(session.messages(), before);
}

#[test]
fn systems_and_wrong_options() {
    let home = Home::new();
    let model = home.tiny_model();
    let session = Session::open(&home.context(), &mut Silent, ChatOptions { system: Some("Be brief.".into()), ..options(&model) }).unwrap();
    assert_eq!(session.messages()[0].content, "Be brief.");
    let refused = |options| Session::open(&home.context(), &mut Silent, options).err().unwrap().to_string();
    assert!(refused(ChatOptions { stop: vec![String::new()], ..options(&model) }).contains("--stop"));
    assert!(refused(ChatOptions { max_tokens: 0, ..options(&model) }).contains("--max-tokens"));
    assert!(refused(options("no-such-model")).contains("no base model named"));
    assert!(refused(options("20261124-063831-4f2a")).contains("no run"));
    let mut hot = Session::open(&home.context(), &mut Silent, ChatOptions { temperature: -1.0, ..options(&model) }).unwrap();
    assert!(hot.reply("Hello", &mut Silent, &mut |_| {}).unwrap_err().to_string().contains("temperature"));
    assert_eq!(hot.messages(), []);
}
