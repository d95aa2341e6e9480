// Login and consent without a form, for the user in login_hint or alice. With login_hint=deny the user refuses.

export function automatic(provider) {
  return async (ctx, next) => {
    if (!ctx.path.startsWith('/automatic/')) return next();
    const { prompt, params, session, grantId } = await provider.interactionDetails(ctx.req, ctx.res);
    return provider.interactionFinished(ctx.req, ctx.res, await decide(provider, prompt, params, session, grantId));
  };
}

async function decide(provider, prompt, params, session, grantId) {
  if (params.login_hint === 'deny') {
    return { error: 'access_denied', error_description: 'the user refused' };
  }
  if (prompt.name === 'login') {
    return { login: { accountId: params.login_hint || 'alice' } };
  }
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(' '));
  return { consent: { grantId: await grant.save() } };
}
