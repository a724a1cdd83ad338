//! What ends a grant of OAuth beside its person: the end of the credential that it was consented to by, and time.

use std::time::Duration;

use super::gate::{make_key, revoke};
use super::*;
use crate::authn::oauth::{ClientId, Scope as OAuthScope};
use crate::base::limits;
use crate::policy::action::{ConsentToClient, IssueTokens, ListGrants, Person, RefreshTokens};
use crate::store::grants::{self, Refusal, Tokens, What};
use crate::store::sign_in::SignedIn;
use crate::store::vault::SignIn;

const DAY: Duration = Duration::from_secs(24 * 3600);
const DASHBOARD: (&str, &str) = ("the key of a dashboard, long", "the secret that a dashboard signs with");

/// A new client is consented to by `who` and gets its tokens; also for how long the first is good.
fn granted(house: &House, who: &Principal) -> (Tokens, Duration) {
    let (vault, call, person) = (house.vault(), Call::internal(), Person(who.user()));
    let client =
        grants::Client { id: ClientId::draw(), secret: None, name: "client".into(), redirect_uris: vec!["https://a.example/".into()] };
    let id = client.id;
    vault.write::<ConsentToClient, _, _>(who, person, &call, move |a| grants::consent(a, &client, "oauth")).unwrap();
    let (tokens, drawn) = grants::draw(vault);
    let agent = Principal::of_consent(who, Vendor::parse("oauth").unwrap());
    let issued = vault.write::<IssueTokens, _, _>(&agent, person, &call, move |a| grants::issue(a, id, OAuthScope { write: true }, drawn));
    (tokens, issued.unwrap().into_parts().0.1)
}

/// Renews the tokens; also for how long the access token is good.
fn renewed(house: &House, tokens: &Tokens) -> Result<(Tokens, Duration), Refused<Refusal>> {
    let vault = house.vault();
    let held =
        vault.held(tokens.refresh.expose()).unwrap().filter(|held| held.what == What::Refresh).expect("a refresh token that is good");
    let (shown, (fresh, drawn)) = (vault.verifier(tokens.refresh.expose()), grants::draw(vault));
    let done = vault
        .write::<RefreshTokens, _, _>(&held.who, Person(held.who.user()), &Call::internal(), move |a| grants::refresh(a, shown, drawn))?;
    Ok((fresh, done.into_parts().0.expect("it was renewed a few times").1))
}

/// Whether the access token opens routes and the refresh token can be exchanged: both, or neither.
fn stands(house: &House, tokens: &Tokens) -> bool {
    let opens = matches!(house.vault().admit(tokens.access.expose()).unwrap(), Admission::Principal(..));
    let renews = house.vault().held(tokens.refresh.expose()).unwrap().is_some();
    assert_eq!(opens, renews, "one of a grant's tokens outlives the other");
    opens
}

fn listed(house: &House, who: &Principal) -> usize {
    let list = house.vault().read::<ListGrants, _, _>(who, Person(who.user()), &Call::internal(), grants::list);
    list.unwrap().into_parts().0.len()
}

#[test]
fn a_key_that_is_revoked_takes_what_was_granted_by_it_along() {
    // Whoever stole a key consented with it once and kept access after the key was revoked.
    let house = House::new();
    let ((stolen, id), (other, _)) = (make_key(&house), make_key(&house));
    let (theirs, mine) = (granted(&house, &admitted(house.vault(), &stolen)).0, granted(&house, &admitted(house.vault(), &other)).0);
    let agent = admitted(house.vault(), theirs.access.expose());
    let held = house.vault().held(theirs.refresh.expose()).unwrap().unwrap();
    assert!(stands(&house, &theirs) && stands(&house, &mine));
    revoke(&house, id);
    assert!(!stands(&house, &theirs) && stands(&house, &mine));
    assert!(matches!(house.vault().admit(theirs.access.expose()).unwrap(), Admission::Unknown));
    // Who was let in before is not any more.
    assert!(matches!(create(house.vault(), &agent, &Call::internal(), "late"), Err(Refused::Revoked(_))));
    let (shown, (_, drawn)) = (house.vault().verifier(theirs.refresh.expose()), grants::draw(house.vault()));
    let late = house
        .vault()
        .write::<RefreshTokens, _, _>(&held.who, Person(held.who.user()), &Call::internal(), move |a| grants::refresh(a, shown, drawn));
    assert!(matches!(late, Err(Refused::Revoked(_))));
    let entry = house.entry("key.revoke");
    assert_eq!((entry.n, entry.res.unwrap().ids.len()), (2, 2), "the key and its grant");
    assert_eq!(house.vault().check(&mut |_, _| {}).unwrap().count, 0);
}

#[test]
fn a_grant_ends_when_its_days_are_over_however_often_it_was_renewed() {
    let mut house = House::new();
    let began = Timestamp::from_ms(1_800_000_000_000);
    house.clock.set(began);
    let owner = house.owner();
    let (mut tokens, lasts) = granted(&house, &owner);
    assert_eq!(lasts, limits::OAUTH_ACCESS_LIFE);
    let life = DAY * limits::OAUTH_GRANT_DAYS;
    for day in (6..90).step_by(6) {
        house.clock.set(began.plus(DAY * day));
        let lasts;
        (tokens, lasts) = renewed(&house, &tokens).unwrap();
        assert_eq!(lasts, limits::OAUTH_ACCESS_LIFE.min(life - DAY * day), "what the client is told is true");
    }
    let last = Timestamp::from_ms(began.plus(life).ms() - 1);
    house.clock.set(last);
    assert!(stands(&house, &tokens) && listed(&house, &owner) == 1);
    let agent = admitted(house.vault(), tokens.access.expose());
    house.clock.set(began.plus(life));
    assert!(!stands(&house, &tokens) && listed(&house, &owner) == 0);
    assert!(matches!(house.vault().admit(tokens.access.expose()).unwrap(), Admission::Expired(_)));
    assert!(matches!(create(house.vault(), &agent, &Call::internal(), "late"), Err(Refused::Revoked(_))));
    // Fewer days hold for who is in already.
    house.clock.set(began);
    let (tokens, _) = granted(&house, &owner);
    house.clock.set(began.plus(DAY));
    assert!(stands(&house, &tokens));
    house.reopen_with(|settings| settings.sign_in = SignIn { grant_days: 1, ..SignIn::default() });
    assert!(!stands(&house, &tokens));
    house.reopen_with(|_| {});
    assert!(stands(&house, &tokens));
}

#[test]
fn a_grant_by_a_key_of_the_settings_ends_where_they_hold_another() {
    let mut house = House::new();
    let (tokens, _) = granted(&house, &house.owner());
    house.reopen_with(|_| {});
    assert!(stands(&house, &tokens));
    let owners = |settings: &mut Settings| settings.static_keys.iter().position(|(name, ..)| name == "RM_API_KEY").unwrap();
    house.reopen_with(|settings| {
        let at = owners(settings);
        settings.static_keys[at].2 = Secret::new("another key of the owner's".to_owned());
    });
    assert!(!stands(&house, &tokens), "the key was changed");
    house.reopen_with(|settings| {
        let at = owners(settings);
        settings.static_keys[at].1 = Vendor::parse("elsewhere");
    });
    assert!(!stands(&house, &tokens), "the key is an agent's now");
    house.reopen_with(|settings| settings.owner_email = "second@example.org".to_owned());
    assert!(!stands(&house, &tokens), "the key is another person's now");
}

#[test]
fn a_grant_by_a_dashboard_ends_with_its_key_and_with_its_secret() {
    let at = |(key, secret): (&str, &str)| SignIn {
        dashboard: Some((Secret::new(key.to_owned()), Secret::new(secret.to_owned()))),
        ..SignIn::default()
    };
    let mut house = House::new();
    house.reopen_with(|settings| settings.sign_in = at(DASHBOARD));
    let spoken = house.vault().dashboard_speaks_for(&Phi::new(OWNER.to_owned()), limits::OAUTH_CODE_LIFE).unwrap();
    let SignedIn::Principal(who, ..) = spoken else { panic!("the owner is known") };
    let (tokens, _) = granted(&house, &who);
    assert!(stands(&house, &tokens));
    for other in [(DASHBOARD.0, "another secret that it signs with"), ("another key of a dashboard, long", DASHBOARD.1)] {
        house.reopen_with(|settings| settings.sign_in = at(other));
        assert!(!stands(&house, &tokens));
    }
    house.reopen_with(|_| {});
    assert!(!stands(&house, &tokens), "there is no dashboard any more");
    house.reopen_with(|settings| settings.sign_in = at(DASHBOARD));
    assert!(stands(&house, &tokens));
}
