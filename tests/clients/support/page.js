// The page of the browser test: a chat, written as an application's front-end would be.

/** The document. Everything it shows stands in a table of `window.seen`, which the test reads. */
export function page(options) {
  return (query) => {
    const script = query.get("script");
    const user = query.get("user");
    return `<!doctype html>
<meta charset="utf-8">
<title>${user}</title>
<script src="/${script}"></script>
<script>
  const auth = (endpoint) => ({ endpoint, transport: "ajax", params: { user: ${JSON.stringify(user)} } });
  const pusher = new Pusher(${JSON.stringify(options.key)}, {
    ...${JSON.stringify(options.clientOptions)},
    channelAuthorization: auth("/pusher/auth"),
    userAuthentication: auth("/pusher/user-auth"),
  });
  window.seen = [];
  pusher.connection.bind("state_change", ({ current }) => seen.push("is " + current));
  pusher.connection.bind("error", (error) => seen.push("error " + JSON.stringify(error)));

  function join(name) {
    const channel = pusher.subscribe(name);
    channel.bind("pusher:subscription_succeeded", (members) => {
      const present = members && members.members ? " with " + Object.keys(members.members).sort().join() : "";
      seen.push("in " + name + present);
    });
    channel.bind("pusher:subscription_error", (error) => seen.push("refused " + JSON.stringify(error)));
    channel.bind("pusher:member_added", (member) => seen.push("joined " + member.info.name));
    channel.bind("pusher:member_removed", (member) => seen.push("left " + member.info.name));
    channel.bind("client-typing", (data, { user_id }) => seen.push("typing " + user_id + " " + data.text));
    channel.bind("greet", (data) => seen.push("greet " + JSON.stringify(data)));
  }
</script>`;
  };
}
