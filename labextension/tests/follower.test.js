/** A log that is followed: nothing missing, nothing twice, whatever happens to the connection. */

import assert from 'node:assert/strict';
import test from 'node:test';

import { Follower } from '../lib/follower.js';
import { Refusal } from '../lib/refusal.js';

globalThis.window = globalThis;

const settled = () => new Promise(resolve => setImmediate(resolve));

const made = read => {
  const shown = [];
  const said = [];
  return { shown, said, follower: new Follower(read, -65536, text => shown.push(text), trouble => said.push(trouble)) };
};

/** A log that answers like the server. */
class Log {
  text = 'begin ';
  asked = [];
  error = null;

  read = async offset => {
    this.asked.push(offset);
    if (this.error) {
      throw this.error;
    }
    const begin = offset < 0 ? Math.max(0, this.text.length + offset) : offset;
    return { text: this.text.slice(begin), offset: begin, next: this.text.length };
  };
}

test('over lost connections and pauses each byte is shown once', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const log = new Log();
  const { follower, shown, said } = made(log.read);
  follower.start();
  follower.start();
  await settled();
  log.error = new TypeError('Failed to fetch');
  log.text += 'lost ';
  t.mock.timers.tick(1000);
  await settled();
  assert.equal(said.at(-1), 'Failed to fetch');
  log.error = null;
  t.mock.timers.tick(1000);
  await settled();
  follower.stop();
  log.text += 'hidden ';
  t.mock.timers.tick(100000);
  assert.equal(log.asked.length, 3);
  follower.start();
  await settled();
  assert.equal(shown.join(''), 'begin lost hidden ');
  assert.deepEqual([said.at(-1), log.asked[0]], ['', -65536]);
  follower.stop();
});

test('a silent log is asked less and less often', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const log = new Log();
  const { follower } = made(log.read);
  follower.start();
  for (let second = 0; second < 60; second++) {
    await settled();
    t.mock.timers.tick(1000);
  }
  assert.ok(log.asked.length <= 11, `${log.asked.length} times in a minute`);
  follower.stop();
});

test('an answer that comes after it was stopped is asked for again, not shown', async () => {
  const log = new Log();
  const { follower, shown } = made(log.read);
  follower.start();
  follower.stop();
  await settled();
  assert.deepEqual(shown, []);
  follower.start();
  await settled();
  assert.deepEqual(shown, ['begin ']);
  follower.stop();
});

test('a refusal is said, and is not repeated before the user asks', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const log = new Log();
  log.error = new Refusal('there is no such log');
  const { follower, said } = made(log.read);
  follower.start();
  await settled();
  t.mock.timers.tick(100000);
  assert.deepEqual([log.asked.length, said], [1, ['there is no such log']]);
  log.error = null;
  follower.start();
  await settled();
  assert.equal(log.asked.length, 2);
  follower.stop();
});

test('what has ended is read to its end, and not asked for again', async t => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pieces = [
    { text: 'first ', next: 1, over: true },
    { text: 'last', next: 2, over: true },
    { text: '', next: 2, over: true }
  ];
  const asked = [];
  const { follower, shown } = made(async from => {
    asked.push(from);
    return pieces[asked.length - 1];
  });
  follower.start();
  for (let second = 0; second < 60; second++) {
    await settled();
    t.mock.timers.tick(1000);
  }
  assert.deepEqual([asked, shown], [[-65536, 1, 2], ['first ', 'last']]);
});
