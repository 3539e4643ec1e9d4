-- SPDX-License-Identifier: MIT
local text = require("farcall.core.text")

local MASK = "«redacted»"
local BAD = "\239\191\189"

local function strip(bytes)
  return (text.clean(bytes, { utf8 = false, secrets = false }))
end

local function repair(bytes)
  return (text.clean(bytes, { escapes = false, secrets = false }))
end

local function redact(bytes)
  return (text.clean(bytes, { escapes = false, utf8 = false }))
end

-- Numbers that are the same in every run.
local function random_from(seed)
  return function(n)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return math.floor(seed / 65536) % n
  end
end

-- The same through a cleaner, piece by piece.
local function clean_in_pieces(bytes, options, next_size)
  local cleaner = text.cleaner(options)
  local out, at = {}, 1
  while at <= #bytes do
    local size = next_size()
    out[#out + 1] = cleaner:feed(bytes:sub(at, at + size - 1))
    at = at + size
  end
  local rest, counts = cleaner:finish()
  out[#out + 1] = rest
  return table.concat(out), counts
end

describe("text: UTF-8", function()
  it("leaves what is well-formed", function()
    for _, good in ipairs({ "", "plain\n\ttext\0\127", "é", "\224\160\128", "\237\159\191",
      "\238\128\128", "\240\144\128\128", "\244\143\191\191", "日本語 😀" }) do
      assert.equal(good, repair(good))
    end
  end)

  it("puts one U+FFFD for each maximal subpart", function()
    local cases = {
      -- Unicode, section 3.9, tables 3-8 to 3-11.
      ["\192\175\224\128\191\240\129\130A"] = BAD:rep(8) .. "A",
      ["\237\160\128\237\191\191\237\175A"] = BAD:rep(8) .. "A",
      ["\244\145\146\147\255A\128\191B"] = BAD:rep(5) .. "A" .. BAD:rep(2) .. "B",
      ["\225\128\226\240\145\146\241\191A"] = BAD:rep(4) .. "A",
      ["\226\130"] = BAD,
      ["\240\159\152x"] = BAD .. "x",
      ["\194\194\169"] = BAD .. "©",
    }
    for bad, repaired in pairs(cases) do
      assert.equal(repaired, repair(bad))
    end
  end)

  it("agrees with a slow decoder on random bytes", function()
    -- Allowed ranges of the bytes that follow, by first byte.
    local function follow(first)
      if first >= 0xC2 and first <= 0xDF then
        return { { 0x80, 0xBF } }
      elseif first >= 0xE0 and first <= 0xEF then
        local low, high = first == 0xE0 and 0xA0 or 0x80, first == 0xED and 0x9F or 0xBF
        return { { low, high }, { 0x80, 0xBF } }
      elseif first >= 0xF0 and first <= 0xF4 then
        local low, high = first == 0xF0 and 0x90 or 0x80, first == 0xF4 and 0x8F or 0xBF
        return { { low, high }, { 0x80, 0xBF }, { 0x80, 0xBF } }
      end
    end
    local function slow(bytes)
      local out, at = {}, 1
      while at <= #bytes do
        local first = bytes:byte(at)
        local ranges = follow(first) or {}
        local size = 1
        for _, range in ipairs(ranges) do
          local byte = bytes:byte(at + size)
          if not byte or byte < range[1] or byte > range[2] then
            break
          end
          size = size + 1
        end
        local good = first < 0x80 or #ranges > 0 and size == #ranges + 1
        out[#out + 1] = good and bytes:sub(at, at + size - 1) or BAD
        at = at + size
      end
      return table.concat(out)
    end
    local random = random_from(1)
    local starts = "Aa\127\128\143\144\159\160\191\192\193\194"
      .. "\223\224\225\236\237\238\239\240\241\244\245\255"
    for _ = 1, 3000 do
      local bytes = {}
      for i = 1, random(40) do
        local at = 1 + random(#starts)
        bytes[i] = random(8) == 0 and string.char(random(256)) or starts:sub(at, at)
      end
      bytes = table.concat(bytes)
      assert.equal(slow(bytes), repair(bytes))
    end
  end)

  it("keeps escapes and secrets when it is the only one on", function()
    assert.equal("\27[1mPASSWORD=hunter2" .. BAD, repair("\27[1mPASSWORD=hunter2\255"))
  end)
end)

describe("text: escapes", function()
  it("strips each kind of sequence", function()
    local cases = {
      ["\27[0m"] = "", ["\27[1;38;5;200m"] = "", ["\27[?25l"] = "", ["\27[2 q"] = "", ["\27[!p"] =
        "",
      ["\27]0;title\7"] = "", ["\27]0;title\27\\"] = "", ["\27]0;títle ✓\7"] = "",
      ["\27]8;;http://x\27\\link\27]8;;\27\\"] = "link",
      ["\27P1$r0m\27\\"] = "", ["\27Xsos\27\\"] = "", ["\27^pm\27\\"] = "",
        ["\27_Gkitty;AAAA\27\\"] = "",
      ["\27Pline\nline\27\\"] = "", ["\27Pwith\7bell\27\\"] = "",
      ["\27(B"] = "", ["\27#8"] = "", ["\27%/G"] = "", ["\27 F"] = "",
      ["\0277\0278\27=\27>\27c\27M\27Z\27n"] = "",
      ["\15531m"] = "", ["\1570;t\156"] = "", ["\1440q\27\\"] = "", ["\132\133\141"] = "",
      ["\194\15531m"] = "", ["\194\1570;t\194\156"] = "", ["\194\133"] = "",
    }
    for sequence, rest in pairs(cases) do
      assert.equal("a" .. rest .. "b", strip("a" .. sequence .. "b"), ("%q"):format(sequence))
    end
  end)

  it("does not take a byte of a UTF-8 character for a control", function()
    for _, good in ipairs({ "Û", "œ", "\196\155", "\227\129\155", "\240\159\146\155", "Ü]",
      "é[0m" }) do
      assert.equal(good, strip(good))
    end
    -- 0x9c inside a title is part of "Ü" and does not end it.
    assert.equal("x", strip("\27]0;Ü\7x"))
  end)

  it("keeps the other control characters", function()
    local controls = "\0\7\8\9\10\11\12\13\127"
    assert.equal(controls, strip(controls))
  end)

  it("ends a sequence at what cannot be part of it, and keeps that", function()
    assert.equal("\nx", strip("\27[1;\nx"))
    assert.equal("x", strip("\27[1\27[0mx"))
    assert.equal("éx", strip("\27éx"))
    assert.equal("éx", strip("\27[1éx"))
    assert.equal("x", strip("\27]0;title\27[1mx"))
    assert.equal("x", strip("\27]0;title\24x"))
    assert.equal("x", strip("\27\27\27cx"))
    assert.equal("", strip("\27"))
    assert.equal("", strip("\27["))
    assert.equal("", strip("\27("))
  end)

  it("takes a string that does not end for text", function()
    assert.equal("0;the rest of the output\n", strip("\27]0;the rest of the output\n"))
    local long = ("x"):rep(20000)
    assert.equal(long .. "\7y", strip("\27]" .. long .. "\7y"))
    assert.equal("y", strip("\27]" .. ("x"):rep(16384) .. "\7y"))
    assert.equal(("x"):rep(16385) .. "\7y", strip("\27]" .. ("x"):rep(16385) .. "\7y"))
  end)

  it("never leaves an ESC", function()
    local random = random_from(2)
    local pieces = { "\27", "[", "]", "P", "\\", "\7", "m", "0", ";", "\155", "\156", "x", "\24",
      "(", "\194" }
    for _ = 1, 5000 do
      local bytes = {}
      for i = 1, random(12) do
        bytes[i] = pieces[1 + random(#pieces)]
      end
      bytes = table.concat(bytes)
      local once = text.clean(bytes)
      assert.is_nil(once:find("\27", 1, true))
      assert.equal(once, (text.clean(once)))
    end
  end)

  it("counts sequences", function()
    local _, counts = text.clean("\27[1mx\27[0m\27]0;t\27\\\1550m\27(B\255")
    assert.same({ escapes = 5, invalid = 1, secrets = 0 }, counts)
  end)
end)

-- Made up, and put together here so that no scanner takes this file for a leak.
local function j(...)
  return table.concat({ ... })
end
local body = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"

describe("text: secrets", function()
  it("masks tokens by their vendors' prefixes, showing six and four characters", function()
    local tokens = {
      j("sk-", body), j("sk-", "proj-", body), j("sk-", "ant-api03-", body, "_", body, "-AA"),
      j("sk-", "or-v1-", body), j("sk_", "live_", body), j("rk_", "test_", body),
      j("ghp_", body:sub(1, 36)), j("gho_", body:sub(1, 36)), j("ghs_", body:sub(1, 36)),
      j("github_", "pat_", body:sub(1, 22), "_", body, body:sub(1, 19)),
      j("glpat-", body:sub(1, 20)), j("gldt-", body:sub(1, 20)),
      j("xoxb-", "123456789012-1234567890123-", body:sub(1, 24)), j("xoxp-", "1234567890-", body),
      j("xapp-", "1-A01234-", body), j("AIza", "Sy", body:sub(1, 33)),
      j("AKIA", "IOSFODNN7EXAMPLQ"), j("ASIA", "IOSFODNN7EXAMPLQ"), j("hf_", body:sub(1, 34)),
      j("npm_", body:sub(1, 36)),
      j("pypi-", "AgEIcHlwaS5vcmc", body, body), j("SG.", body:sub(1, 22), ".", body),
      j("shpat_", body:sub(1, 32)), j("dop_", "v1_", body, body:sub(1, 24)), j("whsec_", body),
      j("gsk_", body, body:sub(1, 12)), j("xai-", body, body), j("pplx-", body),
      j("hvs.", "CAESI", body), j("ya29.", body), j("dckr_", "pat_", body:sub(1, 27)),
      j("ATATT3", "xFfGF0", body), j("lin_", "api_", body), j("tvly-", "dev-", body:sub(1, 32)),
      j("123456789", ":AA", body:sub(1, 33)), j("AGE-SECRET-KEY-", "1", body:upper(),
        body:upper():sub(1, 18)),
    }
    for _, token in ipairs(tokens) do
      local mask = token:sub(1, 6) .. "…" .. token:sub(-4)
      for _, frame in ipairs({ "%s", "use %s, please", "'%s'", "(%s)", "x=%s\n", "%s.", "<%s>",
        "%s\n" }) do
        local before, after = frame:match("^(.*)%%s(.*)$")
        assert.equal(before .. mask .. after, redact(before .. token .. after))
      end
    end
  end)

  it("masks JSON web tokens", function()
    local token = j("eyJ", "hbGciOiJIUzI1NiJ9.", "eyJ", "zdWIiOiIxMjM0NTY3ODkwIn0.",
      "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P")
    assert.equal("t eyJhbG…3I9P end", redact("t " .. token .. " end"))
    assert.equal("eyJhbGciOiJIUzI1NiJ9", redact("eyJhbGciOiJIUzI1NiJ9"))
  end)

  it("masks values that are assigned to names of secrets", function()
    local cases = {
      ["DB_PASSWORD=hunter2\n"] = "DB_PASSWORD=" .. MASK .. "\n",
      ["export PGPASSWORD='x y'; A=1"] = "export PGPASSWORD='x y'; A=1",
      ["export PGPASSWORD='xy#z'; A=1"] = "export PGPASSWORD='" .. MASK .. "'; A=1",
      ["MY_TOKEN=abc12345"] = "MY_TOKEN=" .. MASK,
      ["OPENAI_API_KEY=" .. body] = "OPENAI_API_KEY=a1B2c3…s9T0",
      ["AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCY"] =
        "AWS_SECRET_ACCESS_KEY=wJalrX…fiCY",
      ['{"password": "letmein"}'] = '{"password": "' .. MASK .. '"}',
      ['{\\"password\\": \\"letmein\\"}'] = '{\\"password\\": \\"' .. MASK .. '\\"}',
      ["{'api_key': 'a1b2c3d4e5'}"] = "{'api_key': '" .. MASK .. "'}",
      ['"client_secret":"Gh7-kk2_pp"'] = '"client_secret":"' .. MASK .. '"',
      ['apiKey: "a1b2c3d4e5"'] = 'apiKey: "' .. MASK .. '"',
      ['password = "pa\\"ss"'] = 'password = "' .. MASK .. '"',
      [':password => "letmein"'] = ':password => "' .. MASK .. '"',
      ['os.environ["API_KEY"] = "a1b2c3d4e5"'] = 'os.environ["API_KEY"] = "' .. MASK .. '"',
      ["password: hunter2\nuser: bob"] = "password: " .. MASK .. "\nuser: bob",
      ["  db_pass: correcthorse\n"] = "  db_pass: " .. MASK .. "\n",
      ["X-Api-Key: a1b2c3d4e5f6g7"] = "X-Api-Key: " .. MASK,
      ["GET /x?user=bob&password=pw1234&y=2 HTTP"] = "GET /x?user=bob&password=" .. MASK
        .. "&y=2 HTTP",
      ["Server=db;User Id=sa;Password=Pa55w0rd;"] = "Server=db;User Id=sa;Password=" .. MASK .. ";",
      ["host=db password=s3cret dbname=x"] = "host=db password=" .. MASK .. " dbname=x",
      ["--password=hunter2"] = "--password=" .. MASK,
      ["token: " .. body] = "token: a1B2c3…s9T0",
      ["//registry.npmjs.org/:_authToken=" .. body] =
        "//registry.npmjs.org/:_authToken=a1B2c3…s9T0",
    }
    for bytes, redacted in pairs(cases) do
      assert.equal(redacted, redact(bytes))
    end
  end)

  it("masks Authorization headers", function()
    local cases = {
      ["Authorization: Bearer abc123.def-456"] = "Authorization: Bearer " .. MASK,
      ["authorization: Basic dXNlcjpwYXNz\r\n"] = "authorization: Basic " .. MASK .. "\r\n",
      ["Proxy-Authorization: Basic dXNlcjpwYXNz"] = "Proxy-Authorization: Basic " .. MASK,
      ["curl -H 'Authorization: token a1b2c3d4' x"] = "curl -H 'Authorization: token " .. MASK
        .. "' x",
      ['{"Authorization": "Bearer abc123def"}'] = '{"Authorization": "Bearer ' .. MASK .. '"}',
      ["Authorization: " .. body] = "Authorization: " .. MASK,
    }
    for bytes, redacted in pairs(cases) do
      assert.equal(redacted, redact(bytes))
    end
  end)

  it("masks passwords in URLs", function()
    local cases = {
      ["postgres://bob:s3cret@db:5432/x"] = "postgres://bob:" .. MASK .. "@db:5432/x",
      ["redis://:pw@h/0"] = "redis://:" .. MASK .. "@h/0",
      ["https://bob:p@ss@host/ y"] = "https://bob:" .. MASK .. "@host/ y",
      ["git clone https://" .. body .. "@host/x"] = "git clone https://a1B2c3…s9T0@host/x",
    }
    for bytes, redacted in pairs(cases) do
      assert.equal(redacted, redact(bytes))
    end
  end)

  it("masks private keys", function()
    local function key(label, content, tail)
      return j("-----BEGIN ", label, "-----", content, tail or j("-----END ", label, "-----"))
    end
    local lines = ("\n" .. body .. "+/abcdefghij"):rep(20) .. "\n"
    for _, label in ipairs({ "RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY",
      "EC PRIVATE KEY" }) do
      assert.equal("a " .. key(label, MASK) .. " z", redact("a " .. key(label, lines) .. " z"))
      -- Inside JSON, and cut short.
      assert.equal('"' .. key(label, MASK) .. '\\n"', redact('"' .. key(label, (lines:gsub("\n",
        "\\n"))) .. '\\n"'))
      assert.equal(key(label, MASK, ""), redact(key(label, lines:sub(1, 300), "")))
      assert.equal(key(label, MASK, "$ ls\n"), redact(key(label, lines:sub(1, 300), "$ ls\n")))
      assert.equal(key(label, MASK, ""), redact(key(label, lines:gsub("\n", "\n  "):sub(1, 300),
        "")))
    end
    local public = key("PUBLIC KEY", lines)
    assert.equal(public, redact(public))
  end)

  it("finds a secret that an escape or a cut character breaks up", function()
    assert.equal("ghp_a1…N4o5", (text.clean("gh\27[1mp_" .. body:sub(1, 20) .. "\27]0;x\7"
      .. body:sub(21, 30))))
    assert.equal("PASSWORD=" .. MASK, (text.clean("PASS\27[0mWORD\27[1m=\27[31mhunt\1550mer2")))
  end)

  it("leaves ordinary prose, code and logs alone", function()
    for _, ordinary in ipairs({
      "The password: enter it twice. Password: required.",
      "Forgot your password? The token is valid; its key: patience.",
      "Passwords must match: at least 8 characters",
      "sk-fading-circle-animation-container sk-learn task-force risk-based-testing",
      "desk-1234567890abcdefghij mask_2 hf_model npm_config_registry ghp_stats.py",
      "my_ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
      "private_key: ed25519.Ed25519PrivateKey, backend", 'private_key: "_EllipticCurvePrivateKey"',
      "proxy_pass=url.password or None", "U_UNEXPECTED_TOKEN=0x10100", 'PWD = "pwd"',
      ":type passphrase: :py:data:`bytes`", "scheme://[user:passwd@]proxy:port",
      "key=lambda x: x.name, sorted(items, key=len)",
      "def login(user: str, password: str, token: Token = None) -> Secret:",
      "password = input('Password: ')",
      "password = get_password(user)\npassword = os.environ['DB_PASSWORD']\nself.password ="
        .. " password",
      "token = tokenizer.next_token()\ntoken = tokens[2]\nif token == other_token: pass",
      "connect(host=host, password=password, token=token)",
      "api_key = config.api_key\napi_key=os.getenv(\"API_KEY\")\nclient(api_key=api_key)",
      "const secret = process.env.SECRET;\nlet apiKey = settings.apiKey;",
      "max_tokens=4096 MAX_TOKENS=4096 total_tokens: 123456 next_token=abcdefgh12345678",
      "primary_key=True, foreign_key: 'users.id', PUBLIC_KEY=abcdefgh, sort_key=\"created_at\"",
      "KEY_SIZE=2048 TOKEN_COUNT=17 SECRET_NAME=db-creds PASSWORD_FILE=/run/secrets/db",
      "DB_PASSWORD=$SECRET DB_PASSWORD=${DB_PASSWORD:-x} DB_PASSWORD=<password> PASSWORD=********",
      '{"password": {"type": "string"}, "token": null, "key": "name", "secret": true}',
      '{"password": "string", "api_key": "YOUR_API_KEY", "token": "<token>", "key":'
        .. ' "d41d8cd98f00b204e9800998ecf8427e"}',
      '"password": "Must contain a digit"', 'password: ""', "password: ''", "secret:\n  name: x",
      "secret: kubernetes-secret", "TLS_KEY=/etc/ssl/private/key.pem",
      "Authorization: Bearer <token>", "Authorization: Basic authentication is required",
      "Authorization: Bearer $TOKEN", "authorization: none",
      "http://host:8080/path mailto:bob@example.org ssh://git@github.com/x.git https://user@host/",
      "http://a/b:c@d https://user:password@host/ user@host:/path x://y:${PASS}@z",
        "std::string Token::new() Key::from(x)",
      "2024-01-01T12:34:56.789Z INFO key: value token: 17 status=200 id=7f3a",
      "-----BEGIN CERTIFICATE-----\n" .. body .. "\n-----END CERTIFICATE-----\n",
      'grep -e "-----BEGIN PRIVATE KEY-----" -e "-----END PRIVATE KEY-----" file',
      "monkey=banana1 turkey: 12345678 keyboard=us hockey=abcdefgh12345678abcdef",
      "commit 3f786850e387550fdab836ed7e6dc881de23001b\nsha256:" .. ("0123456789abcdef"):rep(4),
      "550e8400-e29b-41d4-a716-446655440000", ("QUJD"):rep(50), "INFO JSON GIF IJG AI Jan",
      "----------\n--- a/x\n+++ b/x\n-- comment", "case TOKEN_EOF: return KEY_NONE;",
      "secretary: Bob\nauthor: Ann\nkeynote: 9am", "TOKEN=", "password=", "password: ",
    }) do
      assert.equal(ordinary, redact(ordinary))
    end
  end)

  it("leaves this repository's own sources alone", function()
    for _, path in ipairs({ "CMakeLists.txt", "core/text.c", "core/base64.c", "core/secrets.c",
      "core/secret_rules.c" }) do
      local file = assert(io.open(path, "rb"))
      local source = file:read("*a")
      file:close()
      assert.is_true(source == redact(source), path)
    end
  end)

  it("does not mask a mask", function()
    local random = random_from(3)
    for _, bytes in ipairs({ "PASSWORD=hunter2", j("sk-", body), "Authorization: Bearer abc123",
      "token: " .. body,
      '{"password": "letmein"}', "a://b:c@d", j("AKIA", "IOSFODNN7EXAMPLQ") }) do
      local once = redact(bytes)
      assert.not_equal(bytes, once)
      assert.equal(once, redact(once))
    end
    assert.equal(0, random(1))
  end)

  it("masks a secret of any length whole", function()
    assert.equal("a " .. MASK .. " z", redact("a " .. j("sk-", body:rep(1000)) .. " z"))
    assert.equal("PASSWORD=" .. MASK .. "\nz", redact("PASSWORD=" .. body:rep(1000) .. "\nz"))
    assert.equal('"password": "' .. MASK .. '" z', redact('"password": "' .. body:rep(1000)
      .. '" z'))
    local pem = j("-----BEGIN ", "PRIVATE KEY-----")
    assert.equal(pem .. MASK .. "\0z", redact(pem .. ("\n" .. body):rep(1000) .. "\n\0z"))
  end)
end)

describe("text: streams", function()
  -- Things that interact, and what stands between them.
  local pieces = {
    "\27[1m", "\27]0;t", "\27\\", "\7", "\155", "\157x\156", "é", "\226\130", "\172", "😀",
      "\255", "\n", " ", "x", "word ",
    j("sk-", body), j("ghp_", body), "ghp_", "sk-", "AKIA", "IOSFODNN7EXAMPLQ", "AIza", body,
      "xoxb-", "hf_",
    "PASSWORD=", "hunter2", "password: ", '"api_key": "', '"', "\\\"", "'", "token = ",
      "Authorization: Bearer ", "Basic ",
    "://", "http://u:p@h/", "@", ":", "=", "-----BEGIN RSA PRIVATE KEY-----",
      "-----END RSA PRIVATE KEY-----",
    "-----", "-", "eyJ", "hbGciOiJIUzI1NiJ9.", ".", "_", "export ", "123456789:AA", "«", "…",
  }
  local all = {}
  for mask = 0, 7 do
    all[#all + 1] = { escapes = mask % 2 == 1, utf8 = math.floor(mask / 2) % 2 == 1,
      secrets = mask >= 4 }
  end

  it("gives the same whatever the pieces", function()
    local random = random_from(4)
    for round = 1, 2000 do
      local bytes = {}
      for i = 1, 1 + random(14) do
        bytes[i] = pieces[1 + random(#pieces)]
      end
      bytes = table.concat(bytes)
      local options = all[round % 4 == 0 and 1 + random(8) or 8]
      local whole, counts = text.clean(bytes, options)
      local once, once_counts = clean_in_pieces(bytes, options, function()
        return 1
      end)
      local other, other_counts = clean_in_pieces(bytes, options, function()
        return 1 + random(30)
      end)
      assert.equal(whole, once, ("%q"):format(bytes))
      assert.equal(whole, other, ("%q"):format(bytes))
      assert.same(counts, once_counts)
      assert.same(counts, other_counts)
    end
  end)

  it("gives the same around the limits of what is held back", function()
    local random = random_from(5)
    for _, start in ipairs({ "\27]0;", "\27P", j("sk-", ""), "PASSWORD=", '"password": "',
      "Authorization: Bearer ",
      j("eyJ", "hbGciOiJI."), "http://u:", j("-----BEGIN ", "PRIVATE KEY-----\n") }) do
      for _, length in ipairs({ 1015, 4085, 4090, 4096, 4100, 16340, 16370, 16384, 16390,
        70000 }) do
        local filler = body:rep(math.ceil(length / #body)):sub(1, length)
        local bytes = "before " .. start .. filler
          .. "\27\\\"@h -----END PRIVATE KEY----- after PASSWORD=hunter2\n"
        local whole = text.clean(bytes)
        local other = clean_in_pieces(bytes, nil, function()
          return 1 + random(5000)
        end)
        assert.is_true(whole == other, start .. length)
        assert.truthy(whole:find("after PASSWORD=" .. MASK, 1, true))
      end
    end
  end)

  it("holds nothing back at the end of a line of ordinary text", function()
    local cleaner = text.cleaner()
    assert.equal("hello, world\n", cleaner:feed("hello, world\n"))
    assert.equal("50 %\r", cleaner:feed("50 %\r"))
    assert.equal("PASSWORD=" .. MASK .. "\n", cleaner:feed("PASSWORD=hunter2\n"))
    assert.equal("", (cleaner:finish()))
  end)

  it("cleans megabytes of anything", function()
    local random = random_from(6)
    local bytes = {}
    for i = 1, 20000 do
      bytes[i] = pieces[1 + random(#pieces)]
    end
    bytes = table.concat(bytes):rep(4)
    local whole = text.clean(bytes)
    local other = clean_in_pieces(bytes, nil, function()
      return 1 + random(9000)
    end)
    assert.is_true(whole == other)
  end)

  it("ends once, and raises afterwards and on misuse", function()
    local cleaner = text.cleaner({ secrets = false })
    assert.equal("a", cleaner:feed("a"))
    local rest, counts = cleaner:finish()
    assert.equal("", rest)
    assert.same({ escapes = 0, invalid = 0, secrets = 0 }, counts)
    assert.has_error(function()
      cleaner:feed("b")
    end)
    cleaner:close()
    cleaner:close()
    assert.has_error(function()
      text.clean("x", { secret = true })
    end)
    assert.has_error(function()
      text.clean()
    end)
  end)
end)
