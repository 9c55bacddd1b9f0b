//! Fields of cookies: ours are found and taken out, all others stay as they are, and nobody signs for us.

use std::time::Duration;

use cobalance::balance::sticky::{Signer, find_cookie, remove_cookie};
use cobalance::nocobase::{bearer, query_token, session, token_cookie};
use cobalance::upstream::maintenance::Pass;

const NAMES: [&str; 3] = ["cobalance", "a", "a.b"];
const NOW: u64 = 1_700_000_000;
const LIFE: Duration = Duration::from_secs(3600);
/// Hex digits of a value.
const VALUE: usize = 64;

/// The first byte chooses the name of the cookie; the rest is the field. `Err`: what must not be.
pub fn run(bytes: &[u8]) -> Result<(), String> {
    let [mode, field @ ..] = bytes else { return Ok(()) };
    let name = NAMES[usize::from(*mode) % NAMES.len()];
    let found = find_cookie(field, name);
    let left = remove_cookie(field, name);
    if find_cookie(&left, name).is_some() {
        return Err(format!("{name} is still there: {}", text(&left)));
    }
    if found.is_none() && *left != *field {
        return Err(format!("changed for nothing: {}", text(&left)));
    }
    let (before, after) = (others(field, name), others(&left, name));
    if before != after {
        return Err(format!("{} became {}", text(field), text(&left)));
    }
    let signer = Signer::new("secret");
    if let Some(value) = found {
        signed(&signer, value)?;
    }
    forged(&signer, field)?;
    let _ = (session(field), bearer(field));
    if let Ok(text) = str::from_utf8(field) {
        let _ = (query_token(text), token_cookie(Some(text)));
    }
    Ok(())
}

/// The cookies that are not ours, by a reading of its own.
fn others(field: &[u8], name: &str) -> Vec<Vec<u8>> {
    let ours = format!("{name}=").into_bytes();
    let pairs = field.split(|byte| *byte == b';').map(|pair| pair.trim_ascii().to_vec());
    pairs.filter(|pair| !pair.is_empty() && !pair.starts_with(&ours)).collect()
}

/// What comes from outside is believed only if it is what we would have said.
fn signed(signer: &Signer, value: &[u8]) -> Result<(), String> {
    let pass = Pass::new("secret");
    if pass.opens(value, NOW) || pass.admits(value, NOW) {
        return Err(format!("it lets somebody through: {}", text(value)));
    }
    let Some(key) = signer.verify(value, NOW, LIFE) else { return Ok(()) };
    let ours = (0..=LIFE.as_secs() + 300)
        .any(|age| signer.sign(key, (NOW + 300).saturating_sub(age)).as_bytes() == value);
    if ours { Ok(()) } else { Err(format!("believed: {}", text(value))) }
}

/// Touches a good value by what the bytes say: every touched one is refused.
fn forged(signer: &Signer, field: &[u8]) -> Result<(), String> {
    let [at, to, ..] = field else { return Ok(()) };
    let good = signer.sign(signer.node_key("node"), NOW).into_bytes();
    let mut touched = good.clone();
    touched[usize::from(*at) % VALUE] = *to;
    let verified = signer.verify(&touched, NOW, LIFE);
    match verified.is_some() == (touched == good) {
        true => Ok(()),
        false => Err(format!("a touched value counts: {}", text(&touched))),
    }
}

fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}
