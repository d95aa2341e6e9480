// Faults make the server misbehave for a number of requests. A fault is an object:
//
//   path, grantType       which requests: this path, and this grant_type when given
//   times                 how many of them
//   after                 act after the server has done its work (a refresh token is rotated then), before it answers
//   hold                  wait until released
//   drop                  close the connection without an answer
//   status, headers, body answer this instead
//   set, remove           members of the JSON answer to change or remove (implies after)
//
// hold comes first and combines with any of the others.

export class Faults {
  constructor() {
    this.list = [];
    this.waiting = []; // release functions of the held requests
    this.watchers = []; // { count, resolve } of those who wait for held requests
  }

  add(fault) { this.list.push(fault); }

  clear() { this.list = []; }

  held(count) {
    return new Promise((resolve) => {
      this.watchers.push({ count, resolve });
      this.tellWatchers();
    });
  }

  release() {
    for (const go of this.waiting) go();
    this.waiting = [];
  }

  tellWatchers() {
    this.watchers = this.watchers.filter(({ count, resolve }) => {
      if (this.waiting.length < count) return true;
      resolve();
      return false;
    });
  }

  hold() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.tellWatchers();
    });
  }

  async apply(ctx, grantType, next) {
    const fault = this.list.find((f) => f.times > 0 && f.path === ctx.path && (!f.grantType || f.grantType === grantType));
    if (!fault) {
      await next();
      return;
    }
    fault.times -= 1;
    const edits = fault.set || fault.remove;
    if (fault.after || edits) await next();
    if (fault.hold) await this.hold();
    if (fault.drop) {
      ctx.respond = false;
      ctx.req.socket.destroy();
    } else if (fault.status) {
      ctx.status = fault.status;
      ctx.body = fault.body ?? '';
      ctx.set(fault.headers ?? {});
    } else if (edits) {
      ctx.body = { ...ctx.body, ...fault.set };
      for (const name of fault.remove ?? []) delete ctx.body[name];
    } else if (!fault.after) {
      await next();
    }
  }
}
