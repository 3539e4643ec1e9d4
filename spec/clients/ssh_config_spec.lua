-- SPDX-License-Identifier: MIT
local helper = require("spec.helper")
local ssh_config = require("farcall.clients.ssh_config")
local sshd = require("spec.support.sshd")

local WHO = { home = "/home/me", user = "me" }

-- What files with these texts say of a host.
local function said(host, ...)
  local paths = {}
  local dir = helper.scratch()
  for i, text in ipairs({ ... }) do
    paths[i] = dir .. "/" .. i
    helper.write(paths[i], text)
  end
  return assert(ssh_config.read(paths, host, WHO))
end

-- Files at random, of words in all the ways in which they can be written.
local VALUES = {
  HostName = { "%h.example.org", "Box", "10.0.0.1", "a-%h-%h", '"q.example"', "%%x" },
  Port = { "1", "22", "65535" }, User = { "me", '"some one"', "a@b" },
  IdentityFile = { "/k/a", "/k/b", '"/k/with space"', "/k/c # comment" },
  UserKnownHostsFile = { "/h/a", "/h/a /h/b", '"/h/x y" /h/z' },
  ProxyJump = { "none", "gate", "a,b" }, IdentitiesOnly = { "yes", "no" },
  HostKeyAlias = { "al", "be" }, ServerAliveInterval = { "0", "3" }, ForwardAgent = { "yes" },
}
local WORDS = {}
for word in pairs(VALUES) do
  WORDS[#WORDS + 1] = word
end
table.sort(WORDS)
local PATTERNS = {
  "lab", "web?", "web*", "!web9", "*", "a.b-c", "10.0.0.*", "!lab", '"web1"', "db,lab", "L*", "?",
}
local HOSTS = { "lab", "web1", "web12", "web9", "a.b-c", "10.0.0.7", "Lab2" }

local function one_of(list)
  return list[math.random(#list)]
end

local function random_line()
  local between = one_of({ " ", "  ", "=", " = ", "\t", "= " })
  local kind = math.random(10)
  if kind == 1 then
    return one_of({ "", "   ", "# Port 5", "\t# Host *", "Match all" })
  elseif kind < 5 then
    return "Host" .. between .. one_of(PATTERNS) .. one_of({ "", " " .. one_of(PATTERNS) })
  end
  local word = one_of(WORDS)
  return one_of({ "", "  " }) .. one_of({ word, word:lower(), word:upper() }) .. between
    .. one_of(VALUES[word]) .. one_of({ "", "  ", "\t" })
end

-- What ssh itself makes of a file, in the words of ssh_config.read; nil what nobody said.
local function by_ssh(path, host)
  local pipe = assert(io.popen(("ssh -G -F %s %s 2>/dev/null"):format(path, host)))
  local all, files = {}, {}
  for line in pipe:lines() do
    local word, value = line:match("^(%S+) (.*)$")
    all[word] = value
    if word == "identityfile" and value:sub(1, 1) == "/" then
      files[#files + 1] = value
    end
  end
  pipe:close()
  local known = all.userknownhostsfile
  return {
    all.hostname, tonumber(all.port), all.user, table.concat(files, "|"),
    known:find("^/h/") and known or "", all.identitiesonly == "yes", all.hostkeyalias or "",
    tonumber(all.serveraliveinterval), all.proxyjump ~= nil,
  }
end

describe("~/.ssh/config", function()
  it("says to us what it says to ssh", function()
    local user = sshd.run("id -un")
    local path = helper.scratch() .. "/config"
    for seed = 1, 150 do
      math.randomseed(seed)
      local lines = {}
      for i = 1, math.random(12) do
        lines[i] = random_line()
      end
      local text, host = table.concat(lines, "\n"), one_of(HOSTS)
      helper.write(path, text)
      local found = assert(ssh_config.read({ path }, host, WHO))
      assert.same(by_ssh(path, host), {
        found.hostname, found.port or 22, found.user or user,
        table.concat(found.identity_files, "|"), table.concat(found.known_hosts or {}, " "),
        found.only_files, found.host_key_alias or "", found.keepalive or 0, #found.foreign > 0,
      }, host .. ":\n" .. text)
    end
  end)

  it("says nothing where there is none", function()
    local found = assert(ssh_config.read({ "/nonexistent/config" }, "box", WHO))
    assert.equal("box", found.hostname)
    assert.is_nil(found.port)
    assert.same({}, found.identity_files)
    assert.same({}, found.foreign)
  end)

  it("takes the first value of each word, from the first file on", function()
    local found = said("lab", [[
# a comment
Host lab
  HostName lab.example.org   # where it is
  Port 2222
  User=deploy
Host *
  Port 1
  User nobody
  ServerAliveInterval 7
]], "Port 3\nConnectTimeout 9\n")
    assert.equal("lab.example.org", found.hostname)
    assert.equal(2222, found.port)
    assert.equal("deploy", found.user)
    assert.equal(7, found.keepalive)
    assert.equal(9, found.connect_timeout)
  end)

  it("knows patterns, several and negated", function()
    for name, port in pairs({
      ["web1"] = 10, ["web12"] = 20, ["webx"] = 10, ["WEB3"] = 20, ["db"] = 20, ["web9"] = 20,
      ["a.b-c"] = 30,
    }) do
      local found = said(name, [[
Host web? !web9
  Port 10
Host "a.b-c"
  Port 30
Host *
  Port 20
]])
      assert.equal(port, found.port, name)
    end
  end)

  it("adds key files up, and expands what stands in them", function()
    local found = said("lab", [[
Host lab
  HostName %h.example.org
  User deploy
  IdentityFile ~/.ssh/%r@%h
  IdentityFile "%d/keys/with space"
Host *
  IdentityFile /etc/key-%u-%%
  UserKnownHostsFile ~/a ~/b
]])
    assert.equal("lab.example.org", found.hostname)
    assert.same({
      "/home/me/.ssh/deploy@lab.example.org", "/home/me/keys/with space", "/etc/key-me-%",
    }, found.identity_files)
    assert.same({ "/home/me/a", "/home/me/b" }, found.known_hosts)
  end)

  it("names what only OpenSSH can serve, where it is in force", function()
    local text = [[
Host jump
  ProxyJump gate
Host direct
  ProxyCommand none
  ForwardAgent yes
  StrictHostKeyChecking no
Host cert
  CertificateFile ~/c
Host command
  ProxyCommand nc %h %p
]]
    assert.same({ "proxyjump" }, said("jump", text).foreign)
    assert.same({}, said("direct", text, "Host *\n  ProxyCommand nc %h %p\n").foreign)
    assert.same({ "certificatefile" }, said("cert", text).foreign)
    assert.same({ "proxycommand" }, said("command", text).foreign)
    assert.same({}, said("other", text).foreign)
    assert.same({ "match" }, said("other", "Match exec true\n  Port 3\n").foreign)
    assert.same({ "include" }, said("other", "Include */other\n").foreign)
    assert.same({ "%C" }, said("other", "IdentityFile ~/%C\n").foreign)
    assert.same({ "${}" }, said("other", "IdentityFile ${KEYS}/id\n").foreign)
    text = "CanonicalizeHostname no\nCanonicalizeHostname yes\n"
    assert.same({}, said("other", text).foreign)
    assert.same({ "canonicalizehostname" }, said("other", "CanonicalizeHostname yes\n").foreign)
  end)

  it("knows which keys an agent may be asked for, and where it is", function()
    local found = said("lab", "IdentityAgent ~/agent-%u\nIdentitiesOnly yes\n")
    assert.equal("/home/me/agent-me", found.agent)
    assert.is_true(found.only_files)
    found = said("lab", "IdentityAgent $AGENT\n")
    assert.equal("$AGENT", found.agent)
    assert.is_false(found.only_files)
  end)

  it("includes files where they stand, for the hosts for which they stand there", function()
    local dir = helper.scratch() .. "/"
    helper.write(dir .. "b.conf", "User b\nHost other\n  Port 5\n")
    helper.write(dir .. "a.conf", "Port 7\n")
    helper.write(dir .. "a.txt", "Port 8\n")
    local text = ("Include %s*.conf %snone\nHost lab\n  Include %sa.txt\n  HostName x\n"):format(
      dir, dir, dir)
    local found = said("lab", text)
    assert.same({ 7, "b", "x" }, { found.port, found.user, found.hostname })
    found = said("lab", "Host no\n  " .. text)
    assert.same({ 8, "x" }, { found.port, found.hostname })
    helper.write(dir .. "loop", "Include " .. dir .. "loop\n")
    assert.same({ "include" }, said("lab", "Include " .. dir .. "loop\n").foreign)
  end)

  it("tells where a file is wrong", function()
    local path = helper.scratch() .. "/config"
    helper.write(path, "Host a\n  IdentityFile \"open\n")
    local found, err = ssh_config.read({ path }, "a", WHO)
    assert.is_nil(found)
    assert.equal("config", err.kind)
    assert.equal(path .. ":2", err.op)
  end)
end)
