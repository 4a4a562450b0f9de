use serde_json::{Value, json};

use crate::{Client, Host};

/// The password of everyone in the tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// What someone who has logged in holds.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Comes with every request.
    pub access: String,
    /// Is exchanged for a new pair, once.
    pub refresh: String,
}

impl Host {
    /// Makes an admin of the operators' by the command line, as the first one is made, and logs it in.
    ///
    /// # Panics
    /// If a step is refused.
    pub async fn first_admin(&self) -> Tokens {
        let email = "root@operators.test";
        let args = ["user", "create", "--email", email, "--name", "Root", "--role", "admin"];
        let made = self.command(&args, &format!("{PASSWORD}\n"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.client().log_in(email).await
    }
}

impl Client {
    /// Makes a user of an org by an admin's key or token; its id.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn make_user(&self, admin: &str, (org, role): (&str, &str), email: &str) -> String {
        let user = json!({ "email": email, "name": role, "role": role, "org_id": org, "password": PASSWORD });
        let made = self.post("/users", admin, &user).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.text_at("/user_id").to_owned()
    }

    /// Makes a user of `org`, or of the org that the admin belongs to, and logs it in.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn new_user(&self, admin: &Tokens, email: &str, role: &str, org: Option<&str>) -> Tokens {
        let own = self.who_is(&admin.access).await["org_id"].as_str().unwrap().to_owned();
        self.make_user(&admin.access, (org.unwrap_or(&own), role), email).await;
        self.log_in(email).await
    }

    /// Logs in with the password of everyone.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn log_in(&self, email: &str) -> Tokens {
        self.log_in_with(email, PASSWORD).await
    }

    /// Logs in.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn log_in_with(&self, email: &str, password: &str) -> Tokens {
        let login = json!({ "email": email, "password": password });
        let tokens = self.post("/auth/login", "", &login).await;
        assert_eq!(tokens.status, 200, "{}", tokens.text);
        let token = |name| tokens.text_at(name).to_owned();
        Tokens { access: token("/access_token"), refresh: token("/refresh_token") }
    }

    /// Who holds this key or token.
    ///
    /// # Panics
    /// If it is nobody's.
    pub async fn who_is(&self, key: &str) -> Value {
        self.get("/auth/me", key).await.expect(200)
    }
}
