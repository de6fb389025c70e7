// The Move compiler without a network: package sources from a folder, the framework's from stubs.
// Needs the npm package @zktx.io/sui-move-builder@0.5.1 in the current folder's node_modules.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

export const load = (name) => import(pathToFileURL(createRequire(path.join(process.cwd(), 'x.js')).resolve(name)));

export function sources(folder, base = folder) {
  const files = {};
  for (const item of fs.readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, item.name);
    if (item.isDirectory()) Object.assign(files, sources(full, base));
    else if (/\.(move|toml)$/.test(item.name)) files[path.relative(base, full)] = fs.readFileSync(full, 'utf8');
  }
  return files;
}

const FRAMEWORK = { 'sui-framework': 'sui', 'move-stdlib': 'std', 'sui-system': 'sui_system' };

// The compiler asks for the framework's sources as if from its repository; it gets the stubs.
export function stubFetcher(stubsFolder) {
  const stubsOf = (text) => {
    const key = Object.keys(FRAMEWORK).find((name) => (text ?? '').endsWith('packages/' + name));
    return key && path.join(stubsFolder, FRAMEWORK[key]);
  };
  return {
    async fetch(url, revision, folder) {
      const stubs = stubsOf(folder);
      if (!stubs) throw new Error(`no stub for ${url} ${folder}`);
      return sources(stubs);
    },
    async fetchFile(url, revision, file) {
      const stubs = stubsOf(path.dirname(file));
      const full = stubs && path.join(stubs, path.basename(file));
      return full && fs.existsSync(full) ? fs.readFileSync(full, 'utf8') : null;
    },
    getResolvedSha: (url, revision) => revision,
  };
}
