/** The form that submits jobs to drain a queue. */

import React, { useState } from 'react';

import type { Api, ISite } from './api';
import { useLimits, Wish } from './form';
import { fields, request, seen, SHAPES, type Shape } from './launching';
import { complaint, duration } from './limits';

interface IProps {
  api: Pick<Api, 'limits' | 'launch'>;
  site: ISite;
  queue: string;
  /** Told what was submitted; without ids it was given up. */
  done: (ids: string[]) => void;
}

export function Launch({ api, site, queue, done }: IProps): JSX.Element {
  const [shape, setShape] = useState<Shape>('jobs');
  const [typed, setTyped] = useState<{ [key: string]: string }>({});
  const [said, setSaid] = useState('');
  const [busy, setBusy] = useState(false);
  const { limits, look } = useLimits(api, site);

  const slurm = site.batch === 'slurm';
  const wrong = limits ? complaint(limits, { nodes: '1', ...seen(shape, slurm, typed) }) : '';
  const submit = async () => {
    setBusy(true);
    setSaid('');
    try {
      done((await api.launch(site.name, queue, request(shape, slurm, typed))).jobs);
    } catch (error) {
      setSaid((error as Error).message);
      setBusy(false);
    }
  };
  return (
    <form
      className="hpcnb-form"
      onFocus={look}
      onSubmit={event => {
        event.preventDefault();
        if (!wrong) {
          void submit();
        }
      }}
    >
      <label>
        Submit
        <select className="jp-mod-styled" value={shape} onChange={event => setShape(event.target.value as Shape)}>
          {Object.entries(SHAPES).map(([name, { label }]) => (
            <option key={name} value={name}>
              {label}
            </option>
          ))}
        </select>
      </label>
      {fields(shape, slurm).map(({ key, label, hint, number }) => (
        <label key={key}>
          {label}
          <Wish
            name={key}
            number={number ?? false}
            hint={key === 'walltime' && limits ? duration(limits.defaults.walltime) : hint}
            limits={limits}
            wishes={typed}
            change={text => setTyped({ ...typed, [key]: text })}
          />
        </label>
      ))}
      <button type="submit" className="jp-mod-styled jp-mod-accept" disabled={busy || Boolean(wrong)}>
        {busy ? 'Submitting …' : 'Launch'}
      </button>
      <button type="button" className="jp-mod-styled" onClick={() => done([])}>
        Cancel
      </button>
      {(wrong || said) && <pre className="hpcnb-trouble">{wrong || said}</pre>}
    </form>
  );
}
