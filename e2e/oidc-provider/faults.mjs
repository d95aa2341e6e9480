// Faults make a number of requests fail. A fault is an object:
//
//   path, grantType       select requests with this path and, if given, this grant_type
//   times                 the number of requests
//   after                 acts after the server has done its work (it has rotated the refresh token), before the answer
//   hold                  waits until released
//   drop                  closes the connection without an answer
//   status, headers, body replace the answer
//   set, remove           change or remove members of the JSON answer (implies after)
//
// hold comes first and combines with the other actions.

export class Faults {
  constructor() {
    this.list = [];
    this.waiting = []; // release functions of the held requests
    this.watchers = []; // { count, resolve } of pending held() calls
  }

  add(fault) { this.list.push(fault); }

  clear() { this.list = []; }

  held(count) {
    return new Promise((resolve) => {
      this.watchers.push({ count, resolve });
      this.notifyWatchers();
    });
  }

  release() {
    for (const resolve of this.waiting) resolve();
    this.waiting = [];
  }

  notifyWatchers() {
    this.watchers = this.watchers.filter(({ count, resolve }) => {
      if (this.waiting.length < count) return true;
      resolve();
      return false;
    });
  }

  hold() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.notifyWatchers();
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
