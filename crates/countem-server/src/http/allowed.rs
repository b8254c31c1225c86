//! Requests that have the role a handler needs.

use std::marker::PhantomData;

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};

use crate::{
    auth::{Permission, tokens::Role},
    problem::Problem,
    state::State,
};

/// The roles as types, for [`Allowed`].
pub(crate) trait Needs: 'static {
    const ROLE: Role;
}

/// Reads counters.
#[derive(Debug)]
pub(crate) struct Read;
/// Counts.
#[derive(Debug)]
pub(crate) struct Write;
/// Corrects and operates.
#[derive(Debug)]
pub(crate) struct Admin;

impl Needs for Read {
    const ROLE: Role = Role::Read;
}
impl Needs for Write {
    const ROLE: Role = Role::Write;
}
impl Needs for Admin {
    const ROLE: Role = Role::Admin;
}

/// The permission of a request that has a role.
#[derive(Debug)]
pub(crate) struct Allowed<R> {
    permission: Permission,
    role: PhantomData<R>,
}

impl<R> std::ops::Deref for Allowed<R> {
    type Target = Permission;

    fn deref(&self) -> &Permission {
        &self.permission
    }
}

/// For handlers whose role depends on the call.
impl FromRequest for Permission {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<State>>().expect("every app has the state");
        let permission = state.access.permission(request);
        std::future::ready(permission.inspect_err(|problem| state.metrics.refused(problem.code())))
    }
}

impl<R: Needs> FromRequest for Allowed<R> {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<State>>().expect("every app has the state");
        let permission = state.access.permission(request);
        let allowed = permission.and_then(|permission| {
            permission.check_role(R::ROLE)?;
            Ok(Self { permission, role: PhantomData })
        });
        std::future::ready(allowed.inspect_err(|problem| state.metrics.refused(problem.code())))
    }
}
