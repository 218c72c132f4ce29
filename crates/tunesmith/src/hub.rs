//! Where Hugging Face's tools keep models, and how they reach the hub: the variables that they read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use recipes::context::{HUB_ENDPOINT, HubSettings, Token};

/// The settings as the environment has them; `variable` gives a variable that is set and not empty.
pub(crate) fn settings(variable: impl Fn(&str) -> Option<PathBuf>, cache: &Path) -> Result<HubSettings> {
    let text = |name: &str| variable(name).map(|value| value.display().to_string());
    let home = variable("HF_HOME")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("huggingface")))
        .or_else(|| variable("HOME").or_else(|| variable("USERPROFILE")).map(|folder| folder.join(".cache/huggingface")))
        .unwrap_or_else(|| cache.join("huggingface"));
    let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HUB_ENDPOINT.to_owned());
    if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
        bail!("HF_ENDPOINT is {endpoint:?}, expected a URL that begins with https:// or http://");
    }
    let yes = |value: String| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
    let token = match text("HF_TOKEN") {
        Some(given) => match Token::new(&given) {
            Some(token) => Some(token),
            None => bail!("HF_TOKEN has a character that no token has"),
        },
        None => Token::of_file(&variable("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))),
    };
    Ok(HubSettings {
        cache: variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub")),
        endpoint,
        token,
        offline: text("HF_HUB_OFFLINE").is_some_and(yes),
        certificates: variable("SSL_CERT_FILE").or_else(|| variable("REQUESTS_CA_BUNDLE")),
        pause: Duration::from_secs(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<HubSettings> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
        settings(find, Path::new("/c"))
    }

    #[test]
    fn the_variables_of_hugging_face_are_read() {
        let plain = with(&[("HOME", "/h")]).unwrap();
        assert_eq!((plain.cache.to_str(), plain.endpoint.as_str()), (Some("/h/.cache/huggingface/hub"), "https://huggingface.co"));
        assert!(!plain.offline && plain.token.is_none() && plain.certificates.is_none());
        assert_eq!(with(&[]).unwrap().cache, Path::new("/c/huggingface/hub"));
        assert_eq!(with(&[("HF_HOME", "/x"), ("HOME", "/h")]).unwrap().cache, Path::new("/x/hub"));
        let all = [
            ("HF_HUB_CACHE", "/y"),
            ("HF_ENDPOINT", "http://m:1"),
            ("HF_TOKEN", "hf_a"),
            ("HF_HUB_OFFLINE", "true"),
            ("SSL_CERT_FILE", "/p"),
        ];
        let all = with(&all).unwrap();
        assert_eq!((all.cache.as_path(), all.endpoint.as_str(), all.offline), (Path::new("/y"), "http://m:1", true));
        assert_eq!((all.token, all.certificates), (Token::new("hf_a"), Some("/p".into())));
        assert!(with(&[("HF_ENDPOINT", "m:1")]).is_err() && with(&[("HF_TOKEN", "a b")]).is_err());
        assert!(!with(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
    }
}
