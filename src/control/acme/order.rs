//! One order, from the account to the chain (RFC 8555, 7.4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};

use super::http::Http;
use super::now;
use super::plan::{Failure, Kind};
use super::sent::Sent;
use crate::config::{Authority, Order as Asked};
use crate::tls::challenges::{self, Challenge, Challenges};
use crate::tls::vault::{Folder, Lock};
use crate::tls::{Certificate, Vault};

/// The layout of the file of an account.
const VERSION: u32 = 1;
/// So long a challenge is there before the authority is told to look: every replica looks at the directory twice a
/// second, and the authority may come to any of them.
const SETTLE: Duration = Duration::from_secs(2);
/// And so long it may take until this process itself answers.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
/// How often an authority is asked whether it is done: soon, then less and less.
const ASK: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));
/// Tokens have 22 to 43 characters.
const MAX_TOKEN: usize = 128;

/// All that an order needs.
pub(super) struct Job {
    pub(super) authority: Authority,
    pub(super) asked: Asked,
    /// Those that this process answers.
    pub(super) challenges: Arc<Challenges>,
}

/// What was obtained: the key and the chain as PEM, and both understood.
pub(super) struct Obtained {
    pub(super) pem: String,
    pub(super) certificate: Certificate,
}

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    contact: Vec<String>,
    credentials: AccountCredentials,
}

impl Job {
    fn vault(&self) -> &Vault {
        &self.asked.vault
    }

    /// Obtains a certificate.
    pub(super) async fn run(&self, held: &Lock) -> Result<Obtained, Failure> {
        let http = Http::new(&self.authority.roots);
        let obtained = self.obtain(held, &http).await;
        obtained.map_err(|failure| {
            let retry_after = failure.retry_after.or(http.retry_after());
            Failure { retry_after, ..failure }
        })
    }

    async fn obtain(&self, held: &Lock, http: &Http) -> Result<Obtained, Failure> {
        self.clear(held);
        let account = self.account(held, http).await?;
        if let Some(obtained) = self.resume(held, &account).await? {
            return Ok(obtained);
        }
        let mut order = match self.order(&account).await {
            // An authority that has forgotten us, as one for tests does when it starts, gets to know us anew.
            Err(error) if is(&error, "accountDoesNotExist") => {
                self.vault().remove(held, &self.vault().account()).map_err(|e| state(&e))?;
                let account = self.account(held, http).await?;
                self.order(&account).await.map_err(|error| self.failed(&error))?
            }
            order => order.map_err(|error| self.failed(&error))?,
        };
        let proven = self.prove(held, &mut order).await;
        self.clear(held);
        proven?;
        self.finish(held, &mut order).await
    }

    /// Goes on with an order that the authority got before, where one is known whose end nobody saw. `None`: there
    /// is none that could still end well.
    async fn resume(&self, held: &Lock, account: &Account) -> Result<Option<Obtained>, Failure> {
        let path = self.vault().order(&self.asked.domains);
        let kept = self.vault().read(&path).map_err(|error| state(&error))?;
        let Some((sent, key)) = kept.and_then(|kept| Sent::parse(&kept, now())) else {
            return Ok(None);
        };
        let found = account.order(sent.url).await.map_err(|error| self.failed(&error));
        let mut order = match found {
            Ok(order) => order,
            // It knows this order no more, or not us.
            Err(failure) if failure.kind == Kind::Refused => {
                return self.forget(held).map(|()| None);
            }
            Err(failure) => return Err(failure),
        };
        match order.state().status {
            OrderStatus::Pending => return self.forget(held).map(|()| None),
            // The request has not come there.
            OrderStatus::Ready => self.request(held, &mut order, &key).await?,
            OrderStatus::Processing | OrderStatus::Valid | OrderStatus::Invalid => {}
        }
        self.fetch(held, &mut order, &key).await.map(Some)
    }

    /// The account that is kept, else a new one.
    async fn account(&self, held: &Lock, http: &Http) -> Result<Account, Failure> {
        let builder = Account::builder_with_http(Box::new(http.clone()));
        let Authority { contact, directory, external_account, .. } = &self.authority;
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        if let Some(kept) = self.kept_account()? {
            let account = builder.from_credentials(kept.credentials).await;
            let account = account.map_err(|error| self.failed(&error))?;
            if kept.contact != *contact {
                let updated = account.update_contacts(&contacts).await;
                updated.map_err(|error| self.failed(&error))?;
                // Read again: the credentials went into the account.
                if let Some(kept) = self.kept_account()? {
                    self.keep_account(held, kept.credentials)?;
                }
            }
            return Ok(account);
        }
        let new = NewAccount {
            contact: &contacts,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = external_account.as_ref();
        let external =
            external.map(|known| ExternalAccountKey::new(known.key_id.clone(), &known.key));
        let made = builder.create(&new, directory.clone(), external.as_ref()).await;
        let (account, credentials) = made.map_err(|error| self.failed(&error))?;
        self.keep_account(held, credentials)?;
        tracing::info!(target: "cobalance::acme", authority = self.authority.name, account = account.id(),
            "an account was made");
        Ok(account)
    }

    /// One that cannot be understood is not replaced: it is the only proof of who we are.
    fn kept_account(&self) -> Result<Option<Kept>, Failure> {
        let path = self.vault().account();
        let Some(bytes) = self.vault().read(&path).map_err(|error| state(&error))? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) if kept.version == VERSION => Ok(Some(kept)),
            _ => {
                let path = path.display();
                let text = format!("{path} is no account that is understood here: move it away");
                Err(Failure::new(Kind::State, text))
            }
        }
    }

    fn keep_account(&self, held: &Lock, credentials: AccountCredentials) -> Result<(), Failure> {
        let kept = Kept { version: VERSION, contact: self.authority.contact.clone(), credentials };
        let text = serde_json::to_vec_pretty(&kept)
            .map_err(|error| Failure::new(Kind::State, error.to_string()))?;
        self.vault().write(held, &self.vault().account(), &text).map_err(|error| state(&error))
    }

    async fn order(&self, account: &Account) -> Result<Order, instant_acme::Error> {
        let domains = self.asked.domains.iter().cloned().map(Identifier::Dns);
        account.new_order(&NewOrder::new(&domains.collect::<Vec<_>>())).await
    }

    /// Shows that all domains are ours.
    async fn prove(&self, held: &Lock, order: &mut Order) -> Result<(), Failure> {
        let wanted = self.wanted(order).await?;
        for one in &wanted {
            let text = serde_json::to_vec(one)
                .map_err(|error| Failure::new(Kind::State, error.to_string()))?;
            let path = self.vault().path(Folder::Challenges, &one.token);
            self.vault().write(held, &path, &text).map_err(|error| state(&error))?;
        }
        if !wanted.is_empty() {
            self.answered(&wanted).await?;
        }
        let mut all = order.authorizations();
        while let Some(one) = all.next().await {
            let mut one = one.map_err(|error| self.failed(&error))?;
            if one.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = one.challenge(self.kind())
            {
                challenge.set_ready().await.map_err(|error| self.failed(&error))?;
            }
        }
        match order.poll_ready(&ASK).await {
            Ok(OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid) => Ok(()),
            Ok(_) => Err(self.unproven(order, None).await),
            Err(error) => Err(self.unproven(order, Some(error)).await),
        }
    }

    /// What has to be answered; nothing where the authority has looked lately.
    async fn wanted(&self, order: &mut Order) -> Result<Vec<Challenge>, Failure> {
        let refused = |text: String| Err(Failure::new(Kind::Refused, text));
        let mut wanted = Vec::new();
        let mut all = order.authorizations();
        while let Some(one) = all.next().await {
            let mut one = one.map_err(|error| self.failed(&error))?;
            let domain = one.identifier().to_string();
            match one.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return refused(format!("the authorization of {domain} is {status:?}")),
            }
            let kind = self.authority.challenge;
            let Some(challenge) = one.challenge(self.kind()) else {
                let kind = kind.as_str();
                return refused(format!("the authority offers no `{kind}` for {domain}"));
            };
            let token = challenge.token.clone();
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if !(1..=MAX_TOKEN).contains(&token.len()) || !token.bytes().all(is_token) {
                return refused("the authority sent a token that is none".into());
            }
            let key_authorization = challenge.key_authorization().as_str().to_owned();
            wanted.push(Challenge { kind, domain, token, key_authorization });
            if wanted.len() > self.asked.domains.len() {
                return refused("the authority wants more than was asked for".into());
            }
        }
        Ok(wanted)
    }

    fn kind(&self) -> ChallengeType {
        match self.authority.challenge {
            challenges::Kind::Http01 => ChallengeType::Http01,
            challenges::Kind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }

    /// Waits until this process answers, and replicas do.
    async fn answered(&self, wanted: &[Challenge]) -> Result<(), Failure> {
        let seen = async {
            while !self.challenges.have(wanted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SEEN_WITHIN, seen).await.map_err(|_| {
            Failure::new(Kind::State, "what was written for the authority cannot be read back")
        })?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// What the authority has seen instead, as it tells it.
    async fn unproven(&self, order: &mut Order, error: Option<instant_acme::Error>) -> Failure {
        let mut found = None;
        let mut all = order.authorizations();
        while let Some(Ok(mut one)) = all.next().await {
            let domain = one.identifier().to_string();
            let Ok(now) = one.refresh().await else { continue };
            let told = now.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            if let Some(problem) = told {
                let detail = problem.detail.as_deref().unwrap_or("no reason given");
                found = Some(format!("{domain}: {detail}; {}", self.remedy(&domain)));
                break;
            }
        }
        match (found, error) {
            (Some(text), _) => Failure::new(Kind::Refused, text),
            (None, Some(error)) => self.failed(&error),
            (None, None) => Failure::new(Kind::Refused, "the order was refused without a reason"),
        }
    }

    /// What keeps an authority from seeing what it should.
    fn remedy(&self, domain: &str) -> String {
        match self.authority.challenge {
            challenges::Kind::Http01 => {
                format!("port 80 of {domain} must lead to a listener of cobalance")
            }
            challenges::Kind::TlsAlpn01 => format!(
                "port 443 of {domain} must lead to a TLS listener of cobalance, and nobody between may end TLS"
            ),
        }
    }

    /// A new key, and a chain for it.
    async fn finish(&self, held: &Lock, order: &mut Order) -> Result<Obtained, Failure> {
        let key = KeyPair::generate().map_err(|error| no_request(&error))?;
        let sent = Sent::new(order.url(), &key, now());
        let text = serde_json::to_vec(&sent)
            .map_err(|error| Failure::new(Kind::State, error.to_string()))?;
        // First, because it may be issued although we hear no more of it.
        let path = self.vault().order(&self.asked.domains);
        self.vault().write(held, &path, &text).map_err(|error| state(&error))?;
        self.request(held, order, &key).await?;
        self.fetch(held, order, &key).await
    }

    async fn request(&self, held: &Lock, order: &mut Order, key: &KeyPair) -> Result<(), Failure> {
        let request = request(key, &self.asked.domains).map_err(|error| no_request(&error))?;
        let sent = order.finalize_csr(&request).await;
        sent.map_err(|error| self.ended(held, self.failed(&error)))
    }

    /// What was issued for a request.
    async fn fetch(
        &self,
        held: &Lock,
        order: &mut Order,
        key: &KeyPair,
    ) -> Result<Obtained, Failure> {
        use instant_acme::Error;
        let refused = |text: String| self.ended(held, Failure::new(Kind::Refused, text));
        let chain = match order.poll_certificate(&ASK).await {
            Ok(chain) => chain,
            Err(Error::Timeout(next)) => {
                let text = "the authority has not issued the certificate yet; the next attempt asks for the same order";
                return Err(not_yet(text, next));
            }
            Err(Error::Str(_)) if order.state().status == OrderStatus::Invalid => {
                return Err(refused("the order was refused without a reason".into()));
            }
            Err(error) => return Err(self.ended(held, self.failed(&error))),
        };
        let pem = format!("{}{chain}", key.serialize_pem());
        let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes());
        let certificate = certificate.map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            refused(format!("what the authority sent cannot be used: {}", all.join("; ")))
        })?;
        if !certificate.covers(&self.asked.domains) {
            return Err(refused("the authority sent a certificate for other names".into()));
        }
        Ok(Obtained { pem, certificate })
    }

    /// A failure; of one that is the authority's last word, the order is not asked for again.
    fn ended(&self, held: &Lock, failure: Failure) -> Failure {
        match failure.kind {
            Kind::Refused => self.forget(held).err().unwrap_or(failure),
            _ => failure,
        }
    }

    fn forget(&self, held: &Lock) -> Result<(), Failure> {
        let path = self.vault().order(&self.asked.domains);
        self.vault().remove(held, &path).map_err(|error| state(&error))
    }

    /// Whoever holds the lock is the only one who orders: what is there is done with.
    pub(super) fn clear(&self, held: &Lock) {
        for path in self.vault().list(Folder::Challenges).unwrap_or_default() {
            // What stays is answered in vain.
            let _ = self.vault().remove(held, &path);
        }
    }

    fn failed(&self, error: &instant_acme::Error) -> Failure {
        use instant_acme::Error;
        let directory = &self.authority.directory;
        match error {
            Error::Api(problem) if is(error, "rateLimited") => {
                let detail = problem.detail.as_deref().unwrap_or("too many requests");
                Failure::new(
                    Kind::RateLimited,
                    format!("the authority wants fewer orders: {detail}"),
                )
            }
            Error::Api(problem)
                if is(error, "badNonce")
                    || is(error, "serverInternal")
                    || problem.status.is_some_and(|status| status >= 500) =>
            {
                Failure::new(Kind::Unreachable, format!("{directory} has troubles: {problem}"))
            }
            Error::Api(problem) => {
                Failure::new(Kind::Refused, format!("the authority refused: {problem}"))
            }
            Error::Timeout(next) => {
                not_yet("the authority has not looked at all domains yet", *next)
            }
            Error::Crypto | Error::KeyRejected => Failure::new(
                Kind::State,
                format!("the account in {}: {error}", self.vault().account().display()),
            ),
            _ => Failure::new(
                Kind::Unreachable,
                format!(
                    "{directory} cannot be talked to ({}): see that there is a way there (names, firewall), and that its \
                     own certificate is trusted here (`ca`)",
                    causes(error)
                ),
            ),
        }
    }
}

/// An error with what is behind it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// Whether an authority calls its problem so (RFC 8555, 6.7).
fn is(error: &instant_acme::Error, word: &str) -> bool {
    let instant_acme::Error::Api(problem) = error else { return false };
    let kind = problem.r#type.as_deref().unwrap_or_default();
    kind.strip_prefix("urn:ietf:params:acme:error:") == Some(word)
}

pub(super) fn state(error: &std::io::Error) -> Failure {
    Failure::new(Kind::State, format!("the state directory cannot be used: {error}"))
}

/// `next` is when it wants to be asked again.
fn not_yet(text: &str, next: Option<Instant>) -> Failure {
    let retry_after = next.map(|next| next.saturating_duration_since(Instant::now()));
    Failure { retry_after, ..Failure::new(Kind::NotIssued, text) }
}

/// The request for these names, in DER.
fn request(key: &KeyPair, domains: &[String]) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(domains.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn no_request(error: &rcgen::Error) -> Failure {
    Failure::new(Kind::Refused, format!("no request can be made: {error}"))
}
